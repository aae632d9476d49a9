//! A path with real namespaces and devices. Where the machine does not allow it, the tests say so
//! and pass.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use link::{Faults, Path, Settings};
use rustix::process::{Pid, Signal, kill_process};

const LINK: &str = env!("CARGO_BIN_EXE_link");

/// A path that does not need a processor of its own.
fn path() -> Option<Path> {
    let opened = Path::open(Settings { busy: false, ..Settings::default() });
    opened.inspect_err(|why| eprintln!("not tested: {why}")).ok()
}

fn exists(namespace: &str) -> bool {
    std::path::Path::new("/run/netns").join(namespace).exists()
}

/// Something that answers datagrams on the server's side, and its first line: that it listens.
fn answering(path: &Path) -> Child {
    let mut command = path.server().command(LINK);
    let command = command.args(["probe", "--answer"]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the server starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening"), "{line}");
    child
}

/// How many of these datagrams came back.
fn pinged(path: &Path, count: u32) -> u32 {
    let mut command = path.client().command(LINK);
    let output = command.args(["probe", "--from-inside", "--count", &count.to_string()]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn packets_cross_as_the_faults_say_and_nothing_is_left_behind() {
    let Some(mut path) = path() else { return };
    let mut server = answering(&path);
    assert_eq!(pinged(&path, 100), 100);
    let stats = path.stats();
    assert_eq!((stats.forth.counters.packets, stats.back.counters.packets), (100, 100));

    // The receiving kernel must notice every bit that is turned over.
    for lost in ["loss=100%", "corrupt=100%"] {
        path.set(lost.parse().unwrap(), Faults::default(), 1);
        assert_eq!(pinged(&path, 2), 0, "{lost}");
        let stats = path.stats();
        assert_eq!((stats.forth.counters.packets, stats.back.counters.packets), (2, 0), "{lost}");
    }

    let names = [path.client().name().to_owned(), path.server().name().to_owned()];
    drop(path);
    assert!(names.iter().all(|name| !exists(name)));
    // It was killed with its namespace.
    assert!(!server.wait().unwrap().success());
}

#[test]
fn the_same_seed_loses_as_many_again() {
    let Some(mut path) = path() else { return };
    let mut server = answering(&path);
    let mut lost = |seed| {
        path.set("loss=30%".parse().unwrap(), Faults::default(), seed);
        pinged(&path, 10);
        path.stats().forth.counters.lost
    };
    assert_eq!(lost(3), lost(3));
    drop(path);
    server.wait().unwrap();
}

#[test]
fn an_interrupted_program_leaves_neither_namespace_nor_process() {
    let mut command = Command::new(LINK);
    let command = command.args(["open", "--client", "sleep 1000"]).stderr(Stdio::piped());
    let mut program = command.spawn().unwrap();
    let mut lines = BufReader::new(program.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let Some(name) = first.split_whitespace().find(|word| word.starts_with("stubborn-link-"))
    else {
        eprintln!("not tested: {first}");
        program.wait().unwrap();
        return;
    };
    assert!(exists(name));
    kill_process(Pid::from_child(&program), Signal::INT).unwrap();
    assert_eq!(program.wait().unwrap().code(), Some(130));
    assert!(!exists(name));
    // The command holds the other end of this pipe: it ends with it.
    assert_eq!(lines.map_while(Result::ok).filter(|line| line.contains("sleep")).count(), 0);
}
