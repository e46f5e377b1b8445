module reliability

go 1.24
