//! Logs of the connections of a simulated world.

use std::collections::BTreeSet;

use stubborn_sim::{QlogFolder, simulate, simulate_recorded};

#[test]
fn a_recorded_world_goes_as_any_and_its_logs_say_of_no_packet_that_it_was_lost_unsent() {
    let folder = tempfile::tempdir().unwrap();
    let recording = QlogFolder::of_simulation(folder.path()).unwrap().recording();
    let recorded = simulate_recorded(5, None, recording).unwrap();
    assert_eq!(recorded.trace_hash, simulate(5, None).unwrap().trace_hash);
    let (mut logs, mut losses) = (0, 0);
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let entries = text.strip_prefix('\u{1e}').unwrap().split("\n\u{1e}");
        let entries =
            entries.map(|entry| serde_json::from_str::<serde_json::Value>(entry).unwrap());
        let (mut sent, mut last) = (BTreeSet::new(), 0.0);
        for entry in entries.skip(1) {
            let time = entry["time"].as_f64().expect("every event has a time");
            assert!(time >= last, "qvis wants them in order");
            last = time;
            let header = &entry["data"]["header"];
            let packet =
                || (header["packet_type"].to_string(), header["packet_number"].to_string());
            match entry["name"].as_str().unwrap() {
                "transport:packet_sent" => assert!(sent.insert(packet()), "{entry}"),
                "recovery:packet_lost" => {
                    losses += 1;
                    assert!(sent.contains(&packet()), "{entry}");
                }
                _ => {}
            }
        }
        logs += 1;
    }
    assert!(logs > 1 && losses > 0, "{logs} logs, {losses} losses");
}
