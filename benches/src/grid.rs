//! Short tables: as text with aligned columns, or as Markdown.

use std::fmt;
use std::ops::Range;

use comfy_table::{CellAlignment, presets};

/// Rows of cells.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// The columns that are flush right.
    figures: Range<usize>,
}

impl Table {
    /// A table of labels and remarks: every column flush left.
    pub(crate) fn of_text() -> Self {
        Table { rows: Vec::new(), figures: 0..0 }
    }

    /// A table of labels and figures: all columns but the first flush right.
    pub(crate) fn of_numbers() -> Self {
        Table { rows: Vec::new(), figures: 1..usize::MAX }
    }

    /// A table of a label, a figure, its unit and a remark: the figure flush right.
    pub(crate) fn of_measures() -> Self {
        Table { rows: Vec::new(), figures: 1..2 }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is more than the line that names the columns.
    pub(crate) fn has_lines(&self) -> bool {
        self.rows.len() > 1
    }

    /// The table as Markdown; its first row names the columns.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for (nth, row) in self.rows.iter().enumerate() {
            text.push('|');
            row.iter().for_each(|cell| text += &format!(" {} |", cell.replace('|', "\\|")));
            text.push('\n');
            if nth == 0 {
                let rule = |column| if self.figures.contains(&column) { "--:|" } else { "---|" };
                text.push('|');
                (0..row.len()).for_each(|column| text += rule(column));
                text.push('\n');
            }
        }
        // An empty cell has one blank, not two.
        text.replace("|  |", "| |").replace("|  |", "| |")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).add_rows(&self.rows);
        for (nth, column) in table.column_iter_mut().enumerate() {
            column.set_padding((if nth == 0 { 0 } else { 2 }, 0));
            if self.figures.contains(&nth) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "{}", table.trim_fmt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_has_a_rule_below_its_first_row() {
        let mut table = Table::of_numbers();
        table.row(["a", "b", ""].map(String::from));
        assert!(!table.has_lines());
        table.row(["1|2", "", ""].map(String::from));
        assert_eq!(table.markdown(), "| a | b | |\n|---|--:|--:|\n| 1\\|2 | | |\n");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let mut table = Table::of_numbers();
        table.row(["a".into(), "1".into(), "x".into()]);
        table.row(["bcd".into(), "234".into(), "".into()]);
        assert_eq!(table.to_string(), "a      1  x\nbcd  234\n");
    }
}
