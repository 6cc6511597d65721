//! Aligned tables of text. Pure.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table: columns with titles, and rows of cells.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(Align, String)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[(Align, &str)]) -> Self {
        let columns = columns.iter().map(|(align, title)| (*align, title.to_string())).collect();
        Table { columns, rows: Vec::new() }
    }

    /// Appends a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table: a line of titles, then one for each row. Columns stand two spaces apart.
    pub fn render(&self) -> String {
        let titles: Vec<String> = self.columns.iter().map(|(_, title)| title.clone()).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| {
                let cells = self.rows.iter().chain([&titles]).filter_map(|row| row.get(i));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in [&titles].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (i, ((align, _), width)) in self.columns.iter().zip(&widths).enumerate() {
                let cell = row.get(i).map_or("", String::as_str);
                let padding = width.saturating_sub(cell.chars().count());
                if i > 0 {
                    line.push_str("  ");
                }
                if *align == Align::Right {
                    line.extend(core::iter::repeat_n(' ', padding));
                }
                line.push_str(cell);
                if *align == Align::Left {
                    line.extend(core::iter::repeat_n(' ', padding));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[(Align::Right, "ID"), (Align::Left, "NAME"), (Align::Right, "MEMORY")]);
        assert!(table.is_empty());
        table.row(["1".into(), "console".into(), "4 KiB".into()]);
        table.row(["1042".into(), "é".into(), "120 KiB".into()]);
        assert_eq!(
            table.render(),
            "  ID  NAME      MEMORY\n   1  console    4 KiB\n1042  é        120 KiB\n"
        );
    }

    #[test]
    fn short_rows_and_trailing_blanks_do_no_harm() {
        let mut table = Table::new(&[(Align::Left, "A"), (Align::Left, "LONG")]);
        table.row(["x".into()]);
        assert_eq!(table.render(), "A  LONG\nx\n");
    }
}
