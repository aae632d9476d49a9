//! The commands that speak gRPC, against our own door.

use stubborn::grpc::Grpc;

use super::*;

/// What the generator makes of files that import each other.
mod imports {
    include!("../../../build/tests/golden/imports/mod.rs");
}

use imports::shop::Goods;
use imports::shop::common::Money;
use imports::shop::v1::{Order, Shop, ShopServer};
use imports::shopping::Cart;

/// Sells what is in the cart.
struct Counter;

impl Shop for Counter {
    async fn buy(&self, call: Call<Order>) -> Result<Money, Status> {
        let Order { goods, limit, cart } = call.into_message();
        let goods = cart.into_iter().flat_map(|cart| cart.goods).chain(goods);
        let cents = goods.filter_map(|goods| goods.price).map(|price| price.cents).sum();
        match limit {
            Some(limit) if limit.cents < cents => Err(Status::failed_precondition("too dear")),
            _ => Ok(Money { cents }),
        }
    }

    async fn put(&self, call: Call<Cart>) -> Result<Goods, Status> {
        call.into_message().goods.pop().ok_or_else(|| Status::not_found("nothing is in it"))
    }
}

/// Runs `stubborn COMMAND SCHEME://ADDR ARGUMENTS`, over TLS with the authority that it trusts.
fn run(world: &World, scheme: &str, command: &str, arguments: &[&str]) -> Ran {
    let mut ran = world.command();
    ran.env_remove("STUBBORN_PIN").arg(command).arg(format!("{scheme}://{}", world.address));
    ran.args(patience(command));
    if scheme == "grpcs" {
        ran.arg("--ca").arg(world.home.path().join("ca.pem"));
    }
    Ran::from(ran.args(arguments).output().unwrap())
}

#[test]
fn a_server_of_grpc_is_listed_described_called_and_asked_for_its_health() {
    let world = World::with(|server| server.grpc(Grpc::new().plain_too()));
    for scheme in ["grpc", "grpcs"] {
        let run = |command: &str, arguments: &[&str]| run(&world, scheme, command, arguments);
        let listed = run("ls", &[]);
        assert!(listed.out.contains("bank.v1.Bank\n"), "{listed:?}");
        let bank = run("describe", &["bank.v1.Bank"]);
        assert!(bank.out.contains("rpc Balance") && bank.out.contains("// read"), "{bank:?}");
        let message = run("describe", &["bank.v1.TransferRequest"]);
        assert!(message.out.contains("int64 cents = 3;"), "{message:?}");
        let balance = run("call", &["bank.v1.Bank/Balance"]);
        assert_eq!((balance.code, balance.out.as_str()), (0, "{\"cents\":\"1000\"}\n"));
        let refused = run("call", &[TRANSFER, r#"{"cents": 1001}"#]);
        assert!(refused.code == 1 && refused.err.contains("not enough"), "{refused:?}");
        let entries = run("call", &["bank.v1.Bank/History", r#"{"account": "a"}"#]);
        assert_eq!((entries.code, entries.out.lines().count()), (0, 3), "{entries:?}");
        assert_eq!(run("health", &["bank.v1.Bank"]).out, "serving\n");
        let unknown = run("call", &["bank.v1.Bonk/Balance"]);
        assert_eq!(unknown.code, 2, "{unknown:?}");
        let journal = run("call", &[TRANSFER, "--journal", "journal"]);
        assert!(journal.code == 2 && journal.err.contains("gRPC has no way"), "{journal:?}");
    }
}

#[test]
fn a_service_of_grpc_whose_files_import_others_is_described_and_called() {
    let world = World::start(|server, _| {
        server.service(ShopServer::new(Counter)).grpc(Grpc::new().plain())
    });
    let run = |command: &str, arguments: &[&str]| run(&world, "grpc", command, arguments);
    let shop = run("describe", &["shop.v1.Shop"]);
    let line = "rpc Buy(shop.v1.Order) returns (shop.common.Money);";
    assert!(shop.code == 0 && shop.out.contains(line), "{shop:?}");
    // Of a file that the service's does not import itself.
    let money = run("describe", &["shop.common.Money"]);
    assert!(money.code == 0 && money.out.contains("int64 cents = 1;"), "{money:?}");
    let order = r#"{"goods": {"name": "fig", "price": {"cents": 3}},
        "cart": {"goods": [{"name": "pear", "price": {"cents": 4}}]}}"#;
    let bought = run("call", &["shop.v1.Shop/Buy", order]);
    assert_eq!((bought.code, bought.out.as_str()), (0, "{\"cents\":\"7\"}\n"), "{bought:?}");
    let put = run("call", &["shop.v1.Shop/Put", r#"{"goods": [{"name": "fig"}]}"#]);
    assert_eq!((put.code, put.out.as_str()), (0, "{\"name\":\"fig\"}\n"), "{put:?}");
    let typo = run("call", &["shop.v1.Shop/Put", r#"{"goods": [{"nam": "fig"}]}"#]);
    assert!(typo.code == 2 && typo.err.contains("nam"), "{typo:?}");
}
