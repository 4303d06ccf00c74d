//! Tables.

use crate::terminal;

/// Minimum width of a truncated column.
const MIN_WIDTH: usize = 8;

/// Formats a table: a header, and columns as wide as their widest cell, two spaces apart.
///
/// If the terminal is too narrow, columns of `optional` are omitted, in this order, until the rest fits. Then cells are
/// truncated, widest column first. The first column is never truncated: it has the names that other commands take.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: Vec<[String; N]>,
    optional: &[usize],
) -> String {
    render(header, rows, optional, terminal::output_width())
}

fn render<const N: usize>(
    header: [&str; N],
    rows: Vec<[String; N]>,
    optional: &[usize],
    limit: Option<usize>,
) -> String {
    let lines: Vec<[String; N]> = std::iter::once(header.map(str::to_owned))
        .chain(rows)
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let shown = match limit {
        None => (0..N).map(|column| (column, widths[column])).collect(),
        Some(limit) => fit(&widths, optional, limit),
    };
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = shown
            .iter()
            .map(|(column, width)| format!("{:<width$}", truncate(&line[*column], *width)))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Selects the columns to show, each with its width.
fn fit(widths: &[usize], optional: &[usize], limit: usize) -> Vec<(usize, usize)> {
    let mut shown: Vec<_> = widths.iter().copied().enumerate().collect();
    let excess = |shown: &[(usize, usize)]| {
        let total: usize = shown.iter().map(|(_, width)| width + 2).sum();
        total.saturating_sub(limit + 2)
    };
    for column in optional {
        if excess(&shown) > 0 {
            shown.retain(|(kept, _)| kept != column);
        }
    }
    while excess(&shown) > 0 {
        let excess = excess(&shown);
        let widest = shown.iter_mut().skip(1).max_by_key(|(_, width)| *width);
        match widest {
            Some((_, width)) if *width > MIN_WIDTH => {
                *width = width.saturating_sub(excess).max(MIN_WIDTH);
            }
            _ => break,
        }
    }
    shown
}

/// Truncates a text that is longer than `width`, with `…` at its end.
pub(crate) fn truncate(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let kept = cell.chars().take(width.saturating_sub(1));
    kept.chain(['…']).collect()
}

/// Formats a cell; `-` without a value.
pub(crate) fn or_dash(cell: Option<impl ToString>) -> String {
    cell.map_or_else(|| "-".to_owned(), |cell| cell.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_widest_cell() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let rows = vec![row("a", "1"), row("longer", "")];
        let text = render(["NAME", "X"], rows, &[], None);
        assert_eq!(text, "NAME    X\na       1\nlonger\n");
    }

    #[test]
    fn narrow_terminal_omits_and_truncates_columns() {
        let rows = || {
            let url = "https://web-7.preview.example.com".to_owned();
            vec![[
                "web-7".to_owned(),
                "feature/a-long-branch".to_owned(),
                url,
                "1a1a1a1".to_owned(),
            ]]
        };
        let header = ["SLUG", "BRANCH", "URL", "COMMIT"];
        let render = |limit| render(header, rows(), &[3], Some(limit));
        assert_eq!(
            render(80),
            "SLUG   BRANCH                 URL                                COMMIT\n\
             web-7  feature/a-long-branch  https://web-7.preview.example.com  1a1a1a1\n"
        );
        assert_eq!(
            render(64),
            "SLUG   BRANCH                 URL\n\
             web-7  feature/a-long-branch  https://web-7.preview.example.com\n"
        );
        assert_eq!(
            render(61),
            "SLUG   BRANCH                 URL\n\
             web-7  feature/a-long-branch  https://web-7.preview.example.…\n"
        );
        for limit in [30, 40, 50, 60, 70, 80] {
            for line in render(limit).lines() {
                assert!(line.chars().count() <= limit, "{limit}: {line}");
            }
        }
        // Names are never truncated.
        assert!(
            render(5)
                .lines()
                .all(|line| line.starts_with("SLUG") || line.starts_with("web-7"))
        );
    }
}
