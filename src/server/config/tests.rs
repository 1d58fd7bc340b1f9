//! Where values come from, and what is refused.

use std::{collections::HashMap, io::Write as _};

use super::*;

fn nothing(_: &str) -> Option<String> {
    None
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str) -> Result<Config, ServeError> {
    let file = file(text);
    Config::load(&Flags { config: Some(file.path().into()), ..Flags::default() }, &nothing)
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file =
        file("data = '/from/file'\ngrpc = '127.0.0.1:1'\n[topics]\npartitions = 3\ndurability = 'os'\n");
    let env: HashMap<&str, &str> =
        [("ANNALS_GRPC", "127.0.0.1:2"), ("ANNALS_DATA", "/from/env"), ("ANNALS_TOPICS_PARTITIONS", "4")]
            .into();
    let flags =
        Flags { data: Some("/from/flag".into()), config: Some(file.path().into()), ..Flags::default() };
    let config = Config::load(&flags, &|name| env.get(name).map(ToString::to_string)).unwrap();
    assert_eq!(config.data, PathBuf::from("/from/flag"));
    assert_eq!(config.grpc, "127.0.0.1:2");
    assert_eq!(config.partitions, 4);
    assert_eq!(config.durability, Level::Os);
    assert!(config.auto_create);
    assert_eq!(config.source("data"), Source::Flag);
    assert_eq!(config.source("grpc"), Source::Environment("ANNALS_GRPC".into()));
    assert_eq!(config.source("topics.durability"), Source::File(file.path().into()));
    assert_eq!(config.source("topics.auto_create"), Source::Default);
    let shown = config.to_string();
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("topics.partitions") && line.ends_with("ANNALS_TOPICS_PARTITIONS"))
    );
    assert_eq!(shown.lines().count(), SETTINGS.len());
}

#[test]
fn the_environment_can_name_the_file() {
    let file = file("grpc = 'localhost:9'");
    let path = file.path().display().to_string();
    let config =
        Config::load(&Flags::default(), &|name| (name == "ANNALS_CONFIG").then(|| path.clone())).unwrap();
    assert_eq!(config.grpc, "localhost:9");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let flags = Flags { config: Some("/no/such/file.toml".into()), ..Flags::default() };
    let error = Config::load(&flags, &nothing).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().starts_with("/no/such/file.toml: "), "{error}");
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_name() {
    let error = load("[topics]\npartitons = 3\n").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains("\"topics.partitons\""), "{text}");
    assert!(text.contains("Did you mean \"topics.partitions\"?"), "{text}");
    let text = load("colour = 'red'").unwrap_err().to_string();
    assert!(text.contains("There are: data, grpc"), "{text}");
}

#[test]
fn bad_values_name_the_place_the_value_and_the_range() {
    for (text, parts) in [
        ("grpc = 'nowhere'", ["grpc", "\"nowhere\"", "host:port"]),
        ("grpc = 'unix:'", ["grpc", "no path", "unix:/run/annals.sock"]),
        (&format!("grpc = 'unix:/{}'", "x".repeat(107)), ["grpc", "108 bytes", "at most 107"]),
        ("data = ''", ["data", "\"\"", "empty"]),
        ("[topics]\npartitions = 0", ["topics.partitions", "\"0\"", "1 to 1024"]),
        ("[topics]\ndurability = 'disk'", ["topics.durability", "\"disk\"", "fsync, interval or os"]),
        ("[storage]\nsegment_bytes = '1KiB'", ["storage.segment_bytes", "\"1KiB\"", "1048576 to 2147483648"]),
        ("[storage]\nsegment_bytes = '1MB'", ["storage.segment_bytes", "\"1MB\"", "64MiB"]),
        ("ephemeral = 'maybe'", ["ephemeral", "\"maybe\"", "true or false"]),
        ("data = [1]", ["data", "must be", "string"]),
        ("data = ", ["line 1", "", ""]),
    ] {
        let shown = load(text).unwrap_err().to_string();
        for part in parts {
            assert!(shown.contains(part), "{text:?} gave {shown:?}, which lacks {part:?}");
        }
    }
    let error =
        Config::load(&Flags::default(), &|name| (name == "ANNALS_GRPC").then(|| "x".into())).unwrap_err();
    assert!(error.to_string().contains("ANNALS_GRPC"), "{error}");
}

#[test]
fn sizes_may_have_units() {
    let config = load(
        "[storage]\nsegment_bytes = '64MiB'\njournal_bytes = '1GiB'\n[limits]\ninflight_bytes = 67108864",
    )
    .unwrap();
    assert_eq!(
        (config.segment_bytes, config.journal_bytes, config.inflight_bytes),
        (64 << 20, 1 << 30, 64 << 20)
    );
}

#[test]
fn every_default_is_accepted_by_its_own_setting() {
    let mut config = Config::default();
    for setting in &SETTINGS {
        let shown = (setting.get)(&config);
        (setting.set)(&mut config, &shown).unwrap_or_else(|why| panic!("{}: {why}", setting.key));
        assert_eq!((setting.get)(&config), shown, "{}", setting.key);
    }
}

#[test]
fn the_documentation_lists_every_setting_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    let reference = reference();
    assert!(text.contains(&reference), "docs/configuration.md should hold exactly:\n{reference}");
}

/// Found by the fuzz target `config`: a setting's line stays one line.
#[test]
fn a_line_feed_in_a_value_is_refused_or_shown_as_one() {
    let error = load("grpc = \"\\n0.0.0.0:7411\"\n").unwrap_err().to_string();
    assert!(error.contains("host:port"), "{error}");
    let shown = load("data = \"two\\nlines\"\n").unwrap().to_string();
    assert_eq!(shown.lines().count(), SETTINGS.len());
    assert!(shown.contains(r"two\nlines"), "{shown}");
}
