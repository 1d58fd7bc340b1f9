//! The API as its descriptors have it: house rules, and nothing changed that stubs depend on.
//!
//! The rules are those of `buf lint` (STANDARD and COMMENTS), checked here so that no other program is needed. The golden file lists
//! every element with its number and type; a change that breaks stubs shows as a removed or altered line. After an intended
//! change: `ANNALS_UPDATE_GOLDEN=1 cargo test -p annals-wire --test descriptor`, and look at the diff.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: to panic is its verdict")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use annals_wire::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

const PACKAGE: &str = "annals.v1";

/// Our own files of the set.
fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let files: Vec<_> = set.file.into_iter().filter(|file| file.package() == PACKAGE).collect();
    assert_eq!(files.len(), 8);
    files
}

/// Messages of a file with their full names, nested ones after their parents; the entries of maps are left out.
fn messages(file: &FileDescriptorProto) -> Vec<(String, &DescriptorProto)> {
    fn below<'a>(
        out: &mut Vec<(String, &'a DescriptorProto)>,
        parent: &str,
        messages: &'a [DescriptorProto],
    ) {
        for message in messages {
            if message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry) {
                continue;
            }
            let name = format!("{parent}{}", message.name());
            out.push((name.clone(), message));
            below(out, &format!("{name}."), &message.nested_type);
        }
    }
    let mut out = Vec::new();
    below(&mut out, "", &file.message_type);
    out
}

fn enums(file: &FileDescriptorProto) -> &[EnumDescriptorProto] {
    assert!(messages(file).iter().all(|(_, message)| message.enum_type.is_empty()), "no nested enums");
    &file.enum_type
}

fn upper_snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

fn is_lower_snake(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_lowercase())
}

fn is_upper_camel(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric()) && name.starts_with(|c: char| c.is_ascii_uppercase())
}

#[test]
fn files_lie_where_their_package_says_and_agree_on_options() {
    let mut all = BTreeSet::new();
    for file in files() {
        assert_eq!(file.syntax(), "proto3", "{}", file.name());
        let (folder, name) = file.name().rsplit_once('/').unwrap();
        assert_eq!(folder, PACKAGE.replace('.', "/"), "{}", file.name());
        assert!(is_lower_snake(name.strip_suffix(".proto").unwrap()), "{name}");
        let options = file.options.clone().unwrap();
        assert!(options.java_multiple_files(), "{name}");
        let (go, java) = (options.go_package().to_owned(), options.java_package().to_owned());
        all.insert((go, java, options.csharp_namespace().to_owned()));
        let used: BTreeSet<_> = file.dependency.iter().collect();
        assert_eq!(used.len(), file.dependency.len(), "{name}: an import twice");
        assert!(file.public_dependency.is_empty() && file.weak_dependency.is_empty(), "{name}");
    }
    assert_eq!(all.len(), 1, "every file has the same options: {all:?}");
    assert!(PACKAGE.rsplit('.').next().unwrap().starts_with('v'), "the package ends with its version");
}

#[test]
fn services_and_calls_are_named_alike_and_share_no_message() {
    let mut seen = BTreeMap::new();
    let mut services = 0;
    for file in files() {
        for service in &file.service {
            services += 1;
            assert!(
                service.name().ends_with("Service") && is_upper_camel(service.name()),
                "{}",
                service.name()
            );
            for method in &service.method {
                let name = method.name();
                assert!(is_upper_camel(name), "{name}");
                for (used, suffix) in [(method.input_type(), "Request"), (method.output_type(), "Response")] {
                    assert_eq!(used, format!(".{PACKAGE}.{name}{suffix}"), "{name}");
                    let other = seen.insert(used.to_owned(), name.to_owned());
                    assert_eq!(other, None, "{used} belongs to one call");
                }
            }
        }
    }
    assert_eq!((services, seen.len() / 2), (7, 25));
}

#[test]
fn enums_have_prefixes_and_an_unspecified_zero() {
    for file in files() {
        for item in enums(&file) {
            let prefix = upper_snake(item.name());
            assert!(is_upper_camel(item.name()), "{}", item.name());
            let zero = item.value.first().unwrap();
            assert_eq!((zero.number(), zero.name().to_owned()), (0, format!("{prefix}_UNSPECIFIED")));
            assert!(
                !item.options.as_ref().is_some_and(prost_types::EnumOptions::allow_alias),
                "{}",
                item.name()
            );
            for value in &item.value {
                assert!(value.name().starts_with(&format!("{prefix}_")), "{}", value.name());
                assert_eq!(value.name(), value.name().to_uppercase());
            }
        }
    }
}

#[test]
fn fields_are_named_in_lower_snake_case() {
    for file in files() {
        for (name, message) in messages(&file) {
            assert!(name.split('.').all(is_upper_camel), "{name}");
            for field in &message.field {
                assert!(is_lower_snake(field.name()), "{name}.{}", field.name());
                assert_ne!(field.r#type(), Type::Group, "{name}.{}", field.name());
                assert_ne!(field.label(), Label::Required, "{name}.{}", field.name());
                assert_ne!(field.type_name(), ".google.protobuf.Empty", "{name}.{}", field.name());
            }
            for oneof in &message.oneof_decl {
                assert!(is_lower_snake(oneof.name().trim_start_matches('_')), "{name}.{}", oneof.name());
            }
        }
    }
}

/// Whatever carries a run of records writes it last: a serialiser goes by numbers.
#[test]
fn nothing_a_sender_writes_comes_after_the_records() {
    for file in files() {
        for (name, message) in messages(&file) {
            let carries = message.field.iter().any(|field| field.type_name() == ".annals.v1.Record");
            let last = message.field.iter().map(prost_types::FieldDescriptorProto::number).max();
            // A batch's other payloads stand instead of its records.
            if carries && name != "RecordBatch" {
                let run =
                    message.field.iter().find(|field| field.type_name() == ".annals.v1.Record").unwrap();
                assert_eq!((run.number(), last), (15, Some(15)), "{name}");
            }
        }
    }
}

/// Path of an element within a file: numbers of fields of `FileDescriptorProto` and indexes.
type Place = Vec<i32>;

/// Every element that needs a comment, with the name to complain with.
fn elements(file: &FileDescriptorProto) -> Vec<(Place, String)> {
    fn message(out: &mut Vec<(Place, String)>, place: &Place, parent: &str, item: &DescriptorProto) {
        let name = format!("{parent}{}", item.name());
        out.push((place.clone(), name.clone()));
        for (index, field) in item.field.iter().enumerate() {
            out.push((at(place, 2, index), format!("{name}.{}", field.name())));
        }
        for (index, oneof) in item.oneof_decl.iter().enumerate() {
            // `optional` is a oneof of the compiler's own.
            if !oneof.name().starts_with('_') {
                out.push((at(place, 8, index), format!("{name}.{}", oneof.name())));
            }
        }
        for (index, nested) in item.nested_type.iter().enumerate() {
            if !nested.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry) {
                message(out, &at(place, 3, index), &format!("{name}."), nested);
            }
        }
    }
    let mut out = Vec::new();
    for (index, item) in file.message_type.iter().enumerate() {
        message(&mut out, &at(&Vec::new(), 4, index), "", item);
    }
    for (index, item) in file.enum_type.iter().enumerate() {
        let place = at(&Vec::new(), 5, index);
        for (index, value) in item.value.iter().enumerate() {
            out.push((at(&place, 2, index), value.name().to_owned()));
        }
        out.push((place, item.name().to_owned()));
    }
    for (index, item) in file.service.iter().enumerate() {
        let place = at(&Vec::new(), 6, index);
        for (index, method) in item.method.iter().enumerate() {
            out.push((at(&place, 2, index), format!("{}.{}", item.name(), method.name())));
        }
        out.push((place, item.name().to_owned()));
    }
    out
}

fn at(place: &Place, field: i32, index: usize) -> Place {
    [place.as_slice(), &[field, i32::try_from(index).unwrap()]].concat()
}

#[test]
fn every_element_says_what_it_is() {
    for file in files() {
        let info = file.source_code_info.clone().unwrap();
        let comments: BTreeMap<_, _> =
            info.location.iter().map(|location| (&location.path, location.leading_comments())).collect();
        for (place, name) in elements(&file) {
            let comment = comments.get(&place).copied().unwrap_or_default().trim();
            assert!(comment.len() >= 4 && comment.ends_with(['.', ':']), "{name}: {comment:?}");
        }
    }
}

/// Every element with what stubs depend on, a line each.
fn listing() -> String {
    let mut out = String::new();
    for file in files() {
        let options = file.options.clone().unwrap();
        writeln!(out, "file {}", file.name()).unwrap();
        writeln!(out, "  go_package {}", options.go_package()).unwrap();
        writeln!(out, "  java_package {}", options.java_package()).unwrap();
        writeln!(out, "  csharp_namespace {}", options.csharp_namespace()).unwrap();
        for service in &file.service {
            for method in &service.method {
                let stream = |streams: bool| if streams { "stream " } else { "" };
                writeln!(
                    out,
                    "rpc {}.{} ({}{}) ({}{})",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    method.input_type(),
                    stream(method.server_streaming()),
                    method.output_type()
                )
                .unwrap();
            }
        }
        for (name, message) in messages(&file) {
            list_message(&mut out, &name, message);
        }
        for item in enums(&file) {
            for value in &item.value {
                writeln!(out, "enum {}.{} = {}", item.name(), value.name(), value.number()).unwrap();
            }
        }
    }
    out
}

fn list_message(out: &mut String, name: &str, message: &DescriptorProto) {
    writeln!(out, "message {name}").unwrap();
    for range in &message.reserved_range {
        writeln!(out, "  {name} reserved {}..{}", range.start(), range.end()).unwrap();
    }
    for field in &message.field {
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().to_owned(),
            scalar => format!("{scalar:?}").to_lowercase(),
        };
        let label = match field.label() {
            Label::Repeated => "repeated ",
            _ if field.proto3_optional() => "optional ",
            _ => "",
        };
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
        let oneof = oneof.map(|index| message.oneof_decl[usize::try_from(index).unwrap()].name());
        let oneof = oneof.map(|oneof| format!(" in {oneof}")).unwrap_or_default();
        writeln!(out, "  {name}.{} = {} {label}{kind}{oneof}", field.name(), field.number()).unwrap();
    }
}

#[test]
fn nothing_changed_that_stubs_depend_on() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/annals.v1.txt");
    let now = listing();
    if std::env::var_os("ANNALS_UPDATE_GOLDEN").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    let (had, has): (BTreeSet<_>, BTreeSet<_>) = (golden.lines().collect(), now.lines().collect());
    let gone: Vec<_> = had.difference(&has).collect();
    let new: Vec<_> = has.difference(&had).collect();
    assert!(golden == now, "gone or altered: {gone:#?}\nnew: {new:#?}\nintended? see the top of this file");
}

/// Only the API is shown to callers.
#[test]
fn the_set_holds_the_api_and_what_it_imports() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    for file in &set.file {
        assert!([PACKAGE, "google.protobuf"].contains(&file.package()), "{}", file.name());
    }
    let names: BTreeSet<_> = set.file.iter().map(FileDescriptorProto::name).collect();
    for file in &set.file {
        assert!(file.dependency.iter().all(|import| names.contains(import.as_str())), "{}", file.name());
    }
}
