//! What the settings change.

use std::fs;
use std::time::SystemTime;

use stubborn_build::Config;

const BANK: [&str; 1] = ["../../examples/bank/bank.proto"];

fn bank(config: Config) -> String {
    config.generate(BANK).unwrap().files.remove("bank.v1.rs").unwrap()
}

#[test]
fn client_and_server_are_generated_apart() {
    let client = bank(Config::new().server(false));
    assert!(client.contains("pub struct BankClient") && client.contains("pub trait BankCalls"));
    assert!(!client.contains("BankServer") && !client.contains("pub trait Bank:"));
    let server = bank(Config::new().client(false));
    assert!(server.contains("pub trait Bank:") && server.contains("pub struct BankServer"));
    assert!(!server.contains("BankClient") && !server.contains("BankCalls"));
    for one in [client, server] {
        assert!(one.contains("pub static BANK_DESCRIPTOR"));
    }
}

#[test]
fn connect_and_the_runtime_are_as_asked_for() {
    let code = bank(Config::new().connect(false).runtime("::other::rpc"));
    assert!(!code.contains("fn connect"));
    assert!(
        code.contains("::other::rpc::Service") && code.contains("::other::rpc::prost::Message")
    );
    assert!(!code.contains("::stubborn"));
}

#[test]
fn what_exists_elsewhere_is_used_and_not_generated() {
    let config = Config::new().include("tests/proto/imports");
    let config = config.extern_path("shop.common", "::money").extern_path(".shopping", "::carts");
    let files = config.generate(["tests/proto/imports/shop/v1/shop.proto"]).unwrap().files;
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["_protos.rs", "shop.rs", "shop.v1.rs"]);
    let shop = &files["shop.v1.rs"];
    assert!(shop.contains("::core::option::Option<::money::Money>"), "{shop}");
    assert!(shop.contains("Call<::carts::Cart>"), "{shop}");
}

#[test]
fn services_of_an_import_that_exists_elsewhere_are_not_generated() {
    let config = Config::new().include("tests/proto/twins").extern_path("twins.b", "::b");
    let files = config.generate(["tests/proto/twins/a.proto"]).unwrap().files;
    assert_eq!(files.keys().collect::<Vec<_>>(), ["_protos.rs", "twins.a.rs"]);
}

#[test]
fn attributes_stand_where_they_are_asked_for() {
    let code = bank(
        Config::new()
            .type_attribute("bank.v1.Entry", "#[derive(PartialOrd)]")
            .message_attribute(".bank.v1.Heartbeat", "#[must_use]")
            .field_attribute("bank.v1.Entry.cents", "#[doc(alias = \"money\")]"),
    );
    assert_eq!(code.matches("#[derive(PartialOrd)]").count(), 1);
    assert_eq!(code.matches("#[must_use]").count(), 1);
    assert_eq!(code.matches("#[doc(alias = \"money\")]").count(), 1);
}

#[test]
fn options_proto_is_generated_only_if_a_message_uses_its_enum() {
    assert!(!Config::new().generate(BANK).unwrap().files.contains_key("stubborn.rs"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.proto");
    let text = "syntax = \"proto3\"; package a; import \"stubborn/options.proto\";
        message M { stubborn.Semantics semantics = 1; }";
    fs::write(&path, text).unwrap();
    let files = Config::new().generate([path]).unwrap().files;
    assert!(files["stubborn.rs"].contains("pub enum Semantics"));
}

#[test]
fn files_that_did_not_change_are_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made/on/demand");
    let set = dir.path().join("set.bin");
    let config = Config::new().out_dir(&out).file_descriptor_set_path(&set);
    config.compile(BANK).unwrap();
    assert!(fs::metadata(&set).unwrap().len() > 1000);
    let (same, other) = (out.join("bank.v1.rs"), out.join("_protos.rs"));
    for path in [&same, &other] {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    fs::write(&other, "x").unwrap();
    config.compile(BANK).unwrap();
    assert_eq!(fs::metadata(&same).unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
    assert!(fs::read_to_string(&other).unwrap().contains("pub mod bank"));
}

#[test]
fn without_a_place_to_write_to_it_says_what_to_do() {
    // Cargo sets OUT_DIR for build scripts only.
    let error = Config::new().compile(BANK).unwrap_err();
    assert!(error.help().unwrap().contains("build.rs"), "{error}");
}

#[test]
fn the_shipped_files_can_be_imported_and_compiled_by_name() {
    let files = Config::new().generate(["stubborn/reflection.proto"]).unwrap().files;
    assert!(files["stubborn.v1.rs"].contains("pub trait Reflection:"));
}

#[test]
fn a_name_is_not_looked_for_in_packages_of_files_that_are_not_imported() {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("other.proto", "package shop.parts.config;\nmessage Other {}"),
        ("shape.proto", "package shop.config;\nmessage Shape {}"),
        (
            "main.proto",
            "package shop.parts;\nimport \"shape.proto\";\nmessage Part { config.Shape shape = 1; }",
        ),
    ];
    for (name, text) in files {
        std::fs::write(dir.path().join(name), format!("syntax = \"proto3\";\n{text}\n")).unwrap();
    }
    let paths = files.map(|(name, _)| dir.path().join(name));
    let generated = Config::new().include(dir.path()).generate(paths).unwrap();
    assert!(generated.files["shop.parts.rs"].contains("pub shape"), "{:?}", generated.files);
    assert!(generated.files.contains_key("shop.parts.config.rs"));
}
