//! Comments of `.proto` files as rustdoc: nothing in them may become a link that leads nowhere, an
//! HTML tag, or a test.

use prost_build::Comments;

/// The lines of a comment, each as it would stand after `///`.
pub(crate) fn lines(comments: &Comments) -> Vec<String> {
    let mut text = String::new();
    comments.append_with_indent(0, &mut text);
    // Detached comments come as `//`; they belong to nothing.
    let lines = text.lines().filter_map(|line| line.strip_prefix("///"));
    lines.map(str::to_owned).collect()
}

/// Rewrites the lines of a doc comment so that rustdoc shows them as text and nothing else.
pub(crate) fn tidy(lines: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut block = Block::Text;
    for line in lines {
        let body = line.strip_prefix(' ').unwrap_or(line).trim_end();
        let is_fence = ["```", "~~~"].into_iter().find(|f| body.trim_start().starts_with(f));
        match (block, is_fence) {
            (Block::Fenced(open), Some(fence)) if fence == open => {
                block = Block::Text;
                push(&mut out, body);
                continue;
            }
            (Block::Fenced(_), _) => {
                push(&mut out, body);
                continue;
            }
            (Block::Indented, _) if body.is_empty() || is_code(body) => {
                push(&mut out, body.get(4..).unwrap_or("").trim_end());
                continue;
            }
            (Block::Indented, _) => {
                close_indented(&mut out);
                block = Block::Text;
            }
            (Block::Text, _) => {}
        }
        let after_blank = out.last().is_none_or(|l| l.is_empty());
        if let Some(fence) = is_fence {
            block = Block::Fenced(fence);
            push(&mut out, &untested_fence(body, fence));
        } else if after_blank && is_code(body) {
            block = Block::Indented;
            push(&mut out, "```text");
            push(&mut out, body[4..].trim_end());
        } else {
            push(&mut out, &escape_markup(body));
        }
    }
    match block {
        Block::Text => {}
        Block::Indented => close_indented(&mut out),
        Block::Fenced(fence) => push(&mut out, fence),
    }
    out
}

#[derive(Clone, Copy)]
enum Block {
    Text,
    Fenced(&'static str),
    Indented,
}

fn push(out: &mut Vec<String>, body: &str) {
    out.push(if body.is_empty() { String::new() } else { format!(" {body}") });
}

/// Closes a block made of indented lines, before the blank lines at its end.
fn close_indented(out: &mut Vec<String>) {
    let last = out.iter().rposition(|line| !line.is_empty()).unwrap_or(0);
    out.insert(last + 1, " ```".into());
}

/// Markdown takes lines indented by four as code, and rustdoc takes code as a test.
fn is_code(body: &str) -> bool {
    body.starts_with("    ") && !body.trim().is_empty()
}

/// The opening of a fenced block, with a language that rustdoc does not run.
fn untested_fence(body: &str, fence: &str) -> String {
    let language = body.trim_start().trim_start_matches(&fence[..1]).trim();
    match language.split(',').next().unwrap_or("") {
        "" | "rust" | "should_panic" | "no_run" | "compile_fail" => {
            let indent = &body[..body.len() - body.trim_start().len()];
            format!("{indent}{fence}text")
        }
        _ => body.to_owned(),
    }
}

/// Escapes what would be taken as an HTML tag or as a link to an item, outside code. Addresses in
/// angle brackets and links to them stay.
fn escape_markup(body: &str) -> String {
    let mut out = String::with_capacity(body.len());
    let mut in_code = false;
    // The bracket at which a link to an address ends.
    let mut link_end = None;
    let mut rest = body;
    while let Some(c) = rest.chars().next() {
        let (at, after) = (body.len() - rest.len(), &rest[c.len_utf8()..]);
        rest = after;
        match c {
            '`' => in_code = !in_code,
            '\\' if !in_code => {
                // What is escaped already stays so.
                out.push(c);
                let Some(escaped) = after.chars().next() else { break };
                out.push(escaped);
                rest = &after[escaped.len_utf8()..];
                continue;
            }
            '<' if !in_code && is_tag(after) => out.push('\\'),
            '[' if !in_code && link_end.is_none() => {
                link_end = link_to_address(after).map(|len| at + 1 + len);
                if link_end.is_none() {
                    out.push('\\');
                }
            }
            ']' if !in_code && link_end == Some(at) => link_end = None,
            ']' if !in_code && link_end.is_none() => out.push('\\'),
            _ => {}
        }
        out.push(c);
    }
    out
}

fn is_tag(after: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '/' || c == '!';
    after.starts_with(starts) && !after.starts_with("http")
}

/// The length of the text of a link to an address, of which this is what follows its bracket.
fn link_to_address(after: &str) -> Option<usize> {
    let end = after.find(']')?;
    let target = after[end + 1..].strip_prefix('(')?.trim_start_matches('<');
    target.starts_with("http").then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tidied(lines: &[&str]) -> Vec<String> {
        tidy(&lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn indented_lines_become_text_and_no_test() {
        let got = tidied(&[" So:", "", "     let x = 1;", "", "     y", "", " Done."]);
        assert_eq!(got, [" So:", "", " ```text", " let x = 1;", "", " y", " ```", "", " Done."]);
    }

    #[test]
    fn a_fence_without_a_language_is_text_and_one_left_open_is_closed() {
        assert_eq!(tidied(&[" ```", " a", " ```"]), [" ```text", " a", " ```"]);
        assert_eq!(tidied(&[" ```rust", " a"]), [" ```text", " a", " ```"]);
        assert_eq!(tidied(&[" ```json", " a", " ```"]), [" ```json", " a", " ```"]);
    }

    #[test]
    fn tags_are_escaped_outside_code_and_addresses_are_not() {
        assert_eq!(
            tidied(&[" a <b> `<c>` <https://x> 1 < 2"]),
            [" a \\<b> `<c>` <https://x> 1 < 2"]
        );
    }

    #[test]
    fn links_lead_to_addresses_or_are_no_links() {
        let same = [" `[a]` \\[b\\] [c](https://x) [d](<https://y>)"];
        assert_eq!(tidied(&same), same);
        let got = tidied(&[" [A.b][p.A.b] /[A-Z][a-z]+/ [c](#d) ]"]);
        assert_eq!(got, [" \\[A.b\\]\\[p.A.b\\] /\\[A-Z\\]\\[a-z\\]+/ \\[c\\](#d) \\]"]);
    }
}
