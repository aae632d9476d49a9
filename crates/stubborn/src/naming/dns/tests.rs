//! Against a name server of our own on the loopback.

use std::collections::BTreeMap;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA};
use hickory_resolver::proto::rr::{Name, Record};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::*;

type Zone = BTreeMap<Name, Vec<Record>>;

/// A name server that answers from its zone. It ends with the test's runtime.
async fn name_server(records: Vec<Record>) -> (SocketAddr, watch::Sender<Zone>) {
    let (sender, zone) = watch::channel(zone(records));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let answer = answer(&question, &zone.borrow());
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    (address, sender)
}

fn zone(records: Vec<Record>) -> Zone {
    let mut zone = Zone::new();
    for record in records {
        zone.entry(record.name.clone()).or_default().push(record);
    }
    zone
}

fn answer(question: &Message, zone: &Zone) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    let query = question.queries[0].clone();
    match zone.get(query.name()) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(records) => answer.answers.extend(
            records.iter().filter(|record| record.record_type() == query.query_type()).cloned(),
        ),
    }
    answer.queries.push(query);
    answer
}

fn record(name: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data)
}

fn host(name: &str, ttl: u32, ip: [u8; 4]) -> Record {
    record(name, ttl, RData::A(A(ip.into())))
}

fn service(name: &str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    let target = Name::from_ascii(target).unwrap();
    record(name, 300, RData::SRV(SRV::new(priority, weight, port, target)))
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn both_families_of_a_host_are_found() {
    let v6 = record("bank.example.", 300, RData::AAAA(AAAA("::1".parse().unwrap())));
    let records = vec![host("bank.example.", 300, [127, 0, 0, 1]), v6];
    let (server, _zone) = name_server(records).await;
    let mut dns = Dns::new(Some(server), "bank.example", Some(9)).unwrap();
    let mut found = dns.next().await.unwrap();
    found.sort();
    assert_eq!(found, addresses(&["127.0.0.1:9", "[::1]:9"]));
}

#[tokio::test]
async fn records_of_the_service_go_before_those_of_the_host_and_say_the_port() {
    let records = vec![
        host("bank.example.", 300, [127, 0, 0, 9]),
        service("_stubborn._udp.bank.example.", 2, 0, 72, "b.example."),
        service("_stubborn._udp.bank.example.", 1, 0, 71, "a.example."),
        host("a.example.", 300, [127, 0, 0, 1]),
        host("b.example.", 300, [127, 0, 0, 2]),
    ];
    let (server, _zone) = name_server(records).await;
    let mut dns = Dns::new(Some(server), "bank.example", None).unwrap();
    assert_eq!(dns.next().await.unwrap(), addresses(&["127.0.0.1:71", "127.0.0.2:72"]));
}

#[tokio::test]
async fn a_name_without_records_of_a_service_is_a_host_at_the_usual_port() {
    let (server, _zone) = name_server(vec![host("bank.example.", 300, [127, 0, 0, 1])]).await;
    let mut dns = Dns::new(Some(server), "bank.example", None).unwrap();
    assert_eq!(dns.next().await.unwrap(), addresses(&["127.0.0.1:7400"]));
}

#[tokio::test]
async fn a_service_one_of_whose_hosts_is_unknown_has_the_others() {
    let records = vec![
        service("_bank._udp.example.", 1, 0, 1, "gone.example."),
        service("_bank._udp.example.", 2, 0, 2, "here.example."),
        host("here.example.", 300, [127, 0, 0, 1]),
    ];
    let (server, zone) = name_server(records).await;
    let mut dns = Dns::new(Some(server), "_bank._udp.example", None).unwrap();
    assert_eq!(dns.next().await.unwrap(), addresses(&["127.0.0.1:2"]));
    zone.send_modify(|zone| zone.retain(|name, _| name.to_ascii() != "here.example."));
    dns.look_again();
    assert!(dns.next().await.is_err());
}

#[tokio::test]
async fn what_was_found_holds_as_long_as_its_shortest_lived_record() {
    let records = vec![
        service("_bank._udp.example.", 1, 0, 1, "a.example."),
        host("a.example.", 40, [127, 0, 0, 1]),
    ];
    let (server, _zone) = name_server(records).await;
    let mut dns = Dns::new(Some(server), "_bank._udp.example", None).unwrap();
    let begun = Instant::now();
    dns.next().await.unwrap();
    let ended = Instant::now();
    let held = Duration::from_secs(40);
    assert!((begun + held..=ended + held).contains(&dns.due));
}

#[tokio::test]
async fn records_that_expire_at_once_are_looked_up_once_a_second_and_changes_are_told() {
    let (server, zone) = name_server(vec![host("bank.example.", 0, [127, 0, 0, 1])]).await;
    let mut dns = Dns::new(Some(server), "bank.example", Some(1)).unwrap();
    dns.next().await.unwrap();
    assert!(dns.due > Instant::now());
    zone.send_replace(self::zone(vec![host("bank.example.", 0, [127, 0, 0, 2])]));
    assert_eq!(dns.next().await.unwrap(), addresses(&["127.0.0.2:1"]));
}

#[tokio::test]
async fn a_name_that_is_unknown_stands_in_the_error() {
    let (server, _zone) = name_server(Vec::new()).await;
    let mut dns = Dns::new(Some(server), "bank.example", Some(1)).unwrap();
    assert!(dns.next().await.unwrap_err().to_string().contains("bank.example"));
}

#[test]
fn services_of_one_priority_are_drawn_by_weight() {
    let of = |weight| SRV::new(1, weight, weight, Name::root());
    let mut random = Random::from_seed([7; 32]);
    let mut firsts = BTreeMap::new();
    for _ in 0..3_000 {
        let ordered = in_order(vec![of(0), of(10), of(20)], &mut random);
        assert_eq!(ordered.len(), 3);
        *firsts.entry(ordered[0].weight).or_insert(0) += 1;
    }
    // Of 31 draws of the first one is for weight 0, 10 for weight 10, 20 for weight 20.
    assert!(firsts[&20] > 1_700 && firsts[&10] > 800 && firsts[&0] < 200, "{firsts:?}");
}
