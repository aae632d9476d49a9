//! What the generator says of files that it cannot use: what is wrong, where, and what to do.

use std::fs;
use std::path::Path;

use stubborn_build::{Config, Error, Generated};

/// Generates `main.proto` among these files, in a directory of its own.
fn generate(files: &[(&str, &str)]) -> Result<Generated, Error> {
    generate_with(files, |config, dir| config.include(dir))
}

fn generate_with(
    files: &[(&str, &str)],
    change: impl FnOnce(Config, &Path) -> Config,
) -> Result<Generated, Error> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    change(Config::new(), dir.path()).generate([dir.path().join("main.proto")])
}

/// The error of `main.proto` with this content in package `p`, without the directory's name.
fn error_of(body: &str) -> String {
    let text = format!("syntax = \"proto3\"; package p;\n{body}");
    shown(generate(&[("main.proto", &text)]))
}

fn shown(result: Result<Generated, Error>) -> String {
    let error = result.expect_err("it is wrong");
    let text = error.to_string();
    assert_eq!(format!("{error:?}"), text, "a build script's main prints Debug");
    let dir = std::env::temp_dir();
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(dir.to_str().unwrap()) {
        out.push_str(&rest[..at]);
        let path = &rest[at + dir.as_os_str().len() + 1..];
        let end = path.find(['/', '`']).unwrap();
        rest = path[end..].strip_prefix('/').unwrap_or(&path[end..]);
    }
    out + rest
}

#[track_caller]
fn assert_shown(got: &str, expected: &str) {
    assert!(got == expected, "got:\n{got}\nexpected:\n{expected}");
}

#[test]
fn a_syntax_error_shows_the_line_with_a_mark_under_the_place() {
    let got = error_of("message A {\n  string name 1;\n}");
    assert_shown(
        &got,
        "expected '=', but found '1'
 --> main.proto:3:15
  |
3 |   string name 1;
  |               ^ found here",
    );
}

#[test]
fn an_error_can_be_taken_apart() {
    let error = generate(&[("main.proto", "syntax = \"proto3\";\n  oops")]).unwrap_err();
    assert!(error.message().contains("oops"), "{error}");
    assert!(error.file().unwrap().ends_with("main.proto"));
    assert_eq!((error.line(), error.column()), (Some(2), Some(3)));
}

#[test]
fn an_unknown_type_is_shown_where_it_is_used() {
    let got = error_of("message A { Nope n = 1; }");
    assert!(got.starts_with("name 'Nope' is not defined\n --> main.proto:2:13\n"), "{got}");
}

#[test]
fn an_unknown_type_in_a_map_is_shown_too() {
    let got = error_of("// Nope\nmessage A { map<string, Nope> n = 1; }");
    assert!(got.starts_with("name 'Nope' is not defined\n --> main.proto:3:25\n"), "{got}");
}

#[test]
fn a_file_that_ends_too_early_is_shown_at_its_end() {
    let got = error_of("message A {\n  int32 x = 1;\n\n");
    assert!(got.contains("end of file\n --> main.proto:3:15\n"), "{got}");
}

#[test]
fn a_missing_import_says_where_it_was_looked_for() {
    let got = error_of("import \"common/money.proto\";");
    assert_shown(
        &got,
        "import 'common/money.proto' not found
 --> main.proto:2:1
  |
2 | import \"common/money.proto\";
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^ imported here
  = help: searched in ``; name the directory that its path starts from with Config::include (or \
         --include)",
    );
}

#[test]
fn a_missing_import_of_an_import_is_shown_in_the_import() {
    let main = "syntax = \"proto3\";\nimport \"a.proto\";";
    let a = "syntax = \"proto3\";\n\nimport \"b.proto\";";
    let error = generate(&[("main.proto", main), ("a.proto", a)]).unwrap_err();
    assert!(error.file().unwrap().ends_with("a.proto"), "{error}");
    assert_eq!(error.line(), Some(3));
}

#[test]
fn imports_in_a_circle_are_shown_where_the_circle_closes() {
    let got = shown(generate(&[
        ("main.proto", "syntax = \"proto3\";\nimport \"a.proto\";"),
        ("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";"),
        ("b.proto", "syntax = \"proto3\";\n// import \"a.proto\";\nimport \"a.proto\";"),
    ]));
    assert_shown(
        &got,
        "import cycle detected: main.proto -> a.proto -> b.proto -> a.proto
 --> b.proto:3:8
  |
3 | import \"a.proto\";
  |        ^^^^^^^^^ closes the cycle
  = help: move what both files need into a third, and import that from both",
    );
}

#[test]
fn a_file_that_imports_itself_is_an_error() {
    let got = shown(generate(&[("main.proto", "syntax = \"proto3\";\nimport \"main.proto\";")]));
    assert!(got.contains("--> main.proto:2:8"), "{got}");
}

#[test]
fn a_missing_file_says_what_paths_are_relative_to() {
    let error = Config::new().generate(["no/such.proto"]).unwrap_err();
    assert_eq!(error.message(), "file no/such.proto does not exist");
    assert!(error.help().unwrap().starts_with("paths are relative to /"));
}

#[test]
fn a_file_outside_the_include_directories_says_so() {
    let error = Config::new().include("src").generate(["tests/proto/legacy.proto"]).unwrap_err();
    assert!(error.to_string().contains("not in any include path"), "{error}");
    assert!(error.help().unwrap().contains("searched in `src`"), "{error}");
}

#[test]
fn no_files_and_files_that_are_not_text_are_errors() {
    assert!(Config::new().generate(Vec::<String>::new()).is_err());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("main.proto");
    fs::write(&path, b"\xff\xfe").unwrap();
    let error = Config::new().generate([path]).unwrap_err();
    assert!(error.to_string().contains("utf-8"), "{error}");
}

#[test]
fn editions_are_refused_with_what_to_write_instead() {
    let error = generate(&[("main.proto", "edition = \"2023\";")]).unwrap_err();
    assert!(error.help().unwrap().contains("syntax = \"proto3\""), "{error}");
}

const OPTIONS: &str = "import \"stubborn/options.proto\"; import \"google/protobuf/empty.proto\";
message M {}
service S {\n";

#[test]
fn a_read_cannot_be_exactly_once() {
    let got = error_of(&format!(
        "{OPTIONS}  rpc Look(M) returns (M) {{
    option idempotency_level = NO_SIDE_EFFECTS;
    option (stubborn.semantics) = EXACTLY_ONCE;
  }}\n}}"
    ));
    assert_shown(
        &got,
        "rpc p.S.Look cannot be both EXACTLY_ONCE and NO_SIDE_EFFECTS
 --> main.proto:7:5
  |
7 |     option (stubborn.semantics) = EXACTLY_ONCE;
  |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
 ::: main.proto:6:5
  |
6 |     option idempotency_level = NO_SIDE_EFFECTS;
  |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: a NO_SIDE_EFFECTS method is a read, which may run any number of times: keep only one of \
         the two options",
    );
}

#[test]
fn every_contradiction_of_semantics_and_idempotency_is_an_error() {
    for semantics in ["MAYBE", "AT_MOST_ONCE", "EXACTLY_ONCE"] {
        for level in ["NO_SIDE_EFFECTS", "IDEMPOTENT"] {
            let got = error_of(&format!(
                "{OPTIONS}  rpc R(M) returns (google.protobuf.Empty) {{ option idempotency_level = \
                 {level}; option (stubborn.semantics) = {semantics}; }}\n}}"
            ));
            let expected = format!("rpc p.S.R cannot be both {semantics} and {level}\n");
            assert!(got.starts_with(&expected), "{got}");
        }
    }
}

#[test]
fn a_stream_cannot_be_exactly_once_or_maybe() {
    for (semantics, shape) in [
        ("EXACTLY_ONCE", "(M) returns (stream M)"),
        ("EXACTLY_ONCE", "(stream M) returns (M)"),
        ("MAYBE", "(stream M) returns (google.protobuf.Empty)"),
    ] {
        let got = error_of(&format!(
            "{OPTIONS}  rpc R{shape} {{ option (stubborn.semantics) = {semantics}; }}\n}}"
        ));
        let expected =
            format!("rpc p.S.R streams, so it cannot be {semantics}\n --> main.proto:5:");
        assert!(got.starts_with(&expected), "{got}");
    }
}

#[test]
fn a_maybe_method_has_no_reply_to_return() {
    let got = error_of(&format!(
        "{OPTIONS}  rpc R(M) returns (M) {{ option (stubborn.semantics) = MAYBE; }}\n}}"
    ));
    let expected =
        "rpc p.S.R is MAYBE, so no reply is sent, but it returns p.M\n --> main.proto:5:";
    assert!(got.starts_with(expected), "{got}");
    assert!(got.contains("help: return google.protobuf.Empty"), "{got}");
}

#[test]
fn an_unknown_value_of_the_option_is_an_error() {
    let got = error_of(&format!(
        "{OPTIONS}  rpc R(M) returns (M) {{ option (stubborn.semantics) = TWICE; }}\n}}"
    ));
    assert!(got.contains("TWICE") && got.contains("main.proto:5:"), "{got}");
}

#[test]
fn all_findings_are_told_at_once() {
    let got = error_of(&format!(
        "{OPTIONS}  rpc A(M) returns (M) {{ option (stubborn.semantics) = MAYBE; }}
  rpc B(M) returns (stream M) {{ option (stubborn.semantics) = EXACTLY_ONCE; }}\n}}"
    ));
    assert!(got.contains("p.S.A is MAYBE") && got.contains("p.S.B streams"), "{got}");
}

#[test]
fn methods_that_become_one_name_are_shown_both() {
    let got = error_of(
        "message M {}\nservice S {\n  rpc GetAll(M) returns (M);\n  rpc get_all(M) returns (M);\n}",
    );
    assert_shown(
        &got,
        "rpc p.S/get_all and rpc p.S/GetAll would both be `get_all` in Rust
 --> main.proto:5:7
  |
5 |   rpc get_all(M) returns (M);
  |       ^^^^^^^
 ::: main.proto:4:7
  |
4 |   rpc GetAll(M) returns (M);
  |       ^^^^^^ the other
  = help: rename one, or only its Rust form with Config::rename (or --rename)",
    );
}

#[test]
fn renaming_settles_names_that_clash() {
    let text = "syntax = \"proto3\"; package p; message M {} message SClient {}
service S { rpc GetAll(M) returns (M); rpc get_all(M) returns (M); }";
    let files = [("main.proto", text)];
    let generated = generate_with(&files, |config, dir| {
        config.include(dir).rename("p.S", "Stock").rename("p.S/get_all", "get_all_2")
    });
    let generated = generated.unwrap();
    let code = &generated.files["p.rs"];
    assert!(code.contains("pub struct StockClient") && code.contains("fn get_all_2("));
    assert!(code.contains("\"p.S/get_all\""), "the name on the wire stays");
}

#[test]
fn whatever_becomes_one_name_in_rust_is_an_error() {
    for body in [
        "message FooBar {} message Foo_Bar {}",
        "message Foo {} enum foo { A = 0; }",
        "enum E { A_B = 0; AB = 1; a_b = 2; }",
        "message M { oneof a { int32 x = 1; } oneof A { int32 y = 2; } }",
        "message M {} service M2 { rpc A(M) returns (M); } message M2Server {}",
        "message M {} message BankClient {} service Bank {}",
        "message M {} service a_b {} service AB {}",
        "message M { message N {} } message m {}",
    ] {
        let got = error_of(body);
        assert!(got.contains("would both be `"), "{body}: {got}");
        assert!(got.contains("main.proto:2:"), "{body}: {got}");
    }
}

#[test]
fn a_name_without_letters_has_no_rust_form() {
    for body in ["message _ {}", "message M { int32 _ = 1; }", "enum E { _ = 0; }"] {
        let got = error_of(body);
        assert!(got.contains("no letters"), "{body}: {got}");
    }
}

#[test]
fn a_package_and_nested_types_in_one_module_are_an_error() {
    let got = shown(generate(&[
        (
            "main.proto",
            "syntax = \"proto3\"; package p; import \"b.proto\"; message Inner { message N {} }",
        ),
        ("b.proto", "syntax = \"proto3\"; package p.inner; message X {}"),
    ]));
    assert!(got.contains("would both be module `inner`"), "{got}");
}

#[test]
fn settings_that_are_not_rust_are_refused() {
    let with = |change: fn(Config) -> Config| {
        let result = change(Config::new()).generate(["tests/proto/legacy.proto"]);
        result.expect_err("it is wrong").to_string()
    };
    assert!(with(|c| c.runtime("stub born")).contains("the runtime path"));
    assert!(with(|c| c.runtime("self::x")).contains("absolute"));
    assert!(with(|c| c.extern_path("x", "1 2")).contains("is not a path"));
    assert!(with(|c| c.rename("legacy.Legacy", "fn")).contains("is not a Rust name"));
    assert!(with(|c| c.type_attribute(".", "#[derive(")).contains("is not an attribute"));
    assert!(with(|c| c.include_file("a/b.rs")).contains("is not a file name"));
}
