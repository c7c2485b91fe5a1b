//! Columns of text: words to the left, numbers to the right; in a pipe separated by tabs and without a head.

use std::io::{self, Write};

/// A table being filled.
pub(super) struct Table {
    head: &'static [(&'static str, Align)],
    rows: Vec<Vec<String>>,
}

/// Which way a column leans.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl Table {
    pub(super) fn new(head: &'static [(&'static str, Align)]) -> Self {
        Self { head, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Writes it: `pretty` for a terminal, else for programs.
    pub(super) fn write(&self, out: &mut impl Write, pretty: bool) -> io::Result<()> {
        if !pretty {
            for row in &self.rows {
                writeln!(out, "{}", row.join("\t"))?;
            }
            return Ok(());
        }
        let width = |i: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
            cells.chain(self.head.get(i).map(|(name, _)| name.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let names: Vec<_> = self.head.iter().map(|(name, _)| (*name).to_owned()).collect();
        for row in std::iter::once(&names).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(self.head) {
                let room = " ".repeat(width.saturating_sub(cell.chars().count()));
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.extend([cell.as_str(), &room]),
                    Align::Right => line.extend([room.as_str(), cell]),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pretty: bool) -> String {
        let mut table = Table::new(&[("name", Align::Left), ("lines", Align::Right)]);
        table.row(vec!["a".to_owned(), "1".to_owned()]);
        table.row(vec!["longer".to_owned(), "1,234,567".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out, pretty).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_end_where_they_should_and_pipes_get_tabs() {
        assert_eq!(written(true), "name        lines\na               1\nlonger  1,234,567\n");
        assert_eq!(written(false), "a\t1\nlonger\t1,234,567\n");
    }
}
