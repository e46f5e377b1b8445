//! Nothing here: the tests are in `it/`, and what must not compile in `ui/`.
