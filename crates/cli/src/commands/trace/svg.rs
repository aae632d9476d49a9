//! The drawing as a picture.

use std::fmt::Write;

use super::picture::Picture;

const LEFT: usize = 110;
const GAP: usize = 210;
const TOP: usize = 70;
const STEP: usize = 34;

/// The picture as an SVG file.
pub(super) fn draw(picture: &Picture) -> String {
    let x = |column: usize| LEFT + column * GAP;
    let (width, height) = (x(picture.columns.len()), TOP + picture.rows.len() * STEP + 50);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <defs><marker id=\"tip\" markerWidth=\"9\" markerHeight=\"8\" refX=\"8\" refY=\"4\" \
         orient=\"auto\"><path d=\"M0,0 L9,4 L0,8 z\"/></marker></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, (10, 20), "start", &picture.title());
    for (at, column) in picture.columns.iter().enumerate() {
        text(&mut svg, (x(at), TOP - 20), "middle", &column.name);
        line(&mut svg, (x(at), TOP - 10), (x(at), height - 40), "stroke=\"#bbb\"");
    }
    for (at, row) in picture.rows.iter().enumerate() {
        let y = TOP + at * STEP + STEP / 2;
        text(&mut svg, (LEFT - 20, y + 4), "end", &format!("{:.3} ms", row.ms()));
        match row.arrow {
            Some((from, to)) if from != to => {
                line(
                    &mut svg,
                    (x(from), y),
                    (x(to), y),
                    "stroke=\"black\" marker-end=\"url(#tip)\"",
                );
                let near = from.min(to);
                text(&mut svg, (x(near) + GAP / 2, y - 5), "middle", &row.what);
            }
            _ => {
                let _ = writeln!(svg, "<circle cx=\"{}\" cy=\"{y}\" r=\"4\"/>", x(row.column));
                text(&mut svg, (x(row.column) + 10, y + 4), "start", &row.what);
            }
        }
    }
    text(&mut svg, (10, height - 15), "start", &picture.foot());
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, from: (usize, usize), to: (usize, usize), how: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" {how}/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (usize, usize), anchor: &str, text: &str) {
    let _ = write!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">", at.0, at.1);
    for c in text.chars() {
        match c {
            '<' => svg.push_str("&lt;"),
            '&' => svg.push_str("&amp;"),
            c if c.is_control() => {}
            c => svg.push(c),
        }
    }
    svg.push_str("</text>\n");
}
