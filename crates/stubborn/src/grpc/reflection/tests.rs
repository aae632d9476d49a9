use prost::Message;
use prost_types::FileDescriptorProto;

use super::super::generated::grpc::reflection::v1::ExtensionRequest;
use super::*;
use crate::kv::KV_DESCRIPTOR;

fn files() -> Files {
    Files::new(&[&KV_DESCRIPTOR, &SERVER_REFLECTION_DESCRIPTOR, &ALPHA], &ALPHA_FILES)
}

fn ask(what: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { message_request: Some(what), ..Default::default() };
    answer(&files(), &mut BTreeSet::new(), &request)
}

fn names(response: MessageResponse) -> Vec<String> {
    let MessageResponse::FileDescriptorResponse(files) = response else {
        panic!("no files: {response:?}");
    };
    let name = |file: &Vec<u8>| FileDescriptorProto::decode(&file[..]).unwrap().name().to_owned();
    files.file_descriptor_proto.iter().map(name).collect()
}

#[test]
fn services_methods_and_messages_lead_to_their_file_with_its_imports() {
    for symbol in ["stubborn.kv.v1.Kv", "stubborn.kv.v1.Kv.Put", "stubborn.kv.v1.PutRequest"] {
        let found = names(ask(MessageRequest::FileContainingSymbol(symbol.into())));
        assert_eq!(found[0], "stubborn/kv.proto", "{symbol}");
        assert!(found.contains(&"google/protobuf/descriptor.proto".into()), "{found:?}");
    }
}

#[test]
fn what_was_sent_on_a_stream_is_sent_again_only_if_asked_for() {
    let (files, mut sent) = (files(), BTreeSet::new());
    let kv = files.named("stubborn/kv.proto").unwrap();
    assert!(files.with_imports(kv, &mut sent).len() > 1);
    assert_eq!(files.with_imports(kv, &mut sent).len(), 1);
}

#[test]
fn the_protocol_before_it_was_settled_describes_itself_by_its_own_name() {
    let found = names(ask(MessageRequest::FileContainingSymbol(ALPHA.name.into())));
    assert_eq!(found, ["grpc/reflection/v1alpha/reflection.proto"]);
    let file = files().named("grpc/reflection/v1alpha/reflection.proto").unwrap();
    let encoded = files().with_imports(file, &mut BTreeSet::new()).remove(0);
    let text = String::from_utf8_lossy(&encoded).into_owned();
    assert!(!text.contains("grpc.reflection.v1."), "{text}");
}

#[test]
fn extensions_are_found_by_message_and_number() {
    let of = "google.protobuf.MethodOptions";
    let MessageResponse::AllExtensionNumbersResponse(numbers) =
        ask(MessageRequest::AllExtensionNumbersOfType(of.into()))
    else {
        panic!("no numbers");
    };
    let [number] = numbers.extension_number[..] else { panic!("{numbers:?}") };
    let asked = ExtensionRequest { containing_type: of.into(), extension_number: number };
    let found = names(ask(MessageRequest::FileContainingExtension(asked)));
    assert_eq!(found[0], "stubborn/options.proto");
}

#[test]
fn what_is_not_there_is_told_as_not_found() {
    for what in [
        MessageRequest::FileContainingSymbol("no.Such".into()),
        MessageRequest::FileByFilename("no.proto".into()),
        MessageRequest::AllExtensionNumbersOfType("no.Such".into()),
    ] {
        let MessageResponse::ErrorResponse(error) = ask(what) else { panic!("found") };
        assert_eq!(error.error_code, stubborn::Code::NotFound as i32);
    }
}
