//! Tables without lines or wrapping: they can be read, and cut by `awk`.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Rows under a head.
#[derive(Debug)]
pub(crate) struct Rows {
    table: Table,
}

impl Rows {
    /// An empty table. A head that starts with `>` is aligned to the right, as
    /// numbers are.
    pub(crate) fn new(heads: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(heads.iter().map(|head| head.trim_start_matches('>')));
        for (at, head) in heads.iter().enumerate() {
            let Some(column) = table.column_mut(at) else { continue };
            column.set_padding((0, 2));
            if head.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table }
    }

    /// Adds a row. Control characters are shown as escapes, so that a name
    /// cannot play with the terminal.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells.map(|cell| plain(&cell)));
    }

    /// The table as text, or `otherwise` when it has no rows.
    pub(crate) fn or(&self, otherwise: &str) -> String {
        if self.table.is_empty() {
            return otherwise.to_owned();
        }
        let text = self.table.to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// Names and values, one a line, the names aligned.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("{name:width$}  {}", plain(value));
    facts.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn plain(text: &str) -> String {
    let escape = |c: char| -> String {
        if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_per_row_however_long() {
        let mut rows = Rows::new(&["NAME", ">ROWS"]);
        rows.row(["orders".to_owned(), "7".to_owned()]);
        rows.row(["x".repeat(300), "1,000".to_owned()]);
        let text = rows.or("none");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("NAME"), "{text}");
        assert!(lines[1].starts_with("orders") && lines[1].ends_with("    7"), "{text}");
    }

    #[test]
    fn an_empty_table_says_what_to_do() {
        assert_eq!(Rows::new(&["NAME"]).or("no exports yet"), "no exports yet");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut rows = Rows::new(&["NAME"]);
        rows.row(["\u{1b}[2Jgone\nline".to_owned()]);
        let text = rows.or("");
        assert!(!text.contains('\u{1b}') && text.lines().count() == 2, "{text}");
    }
}
