//! A configuration file as a function over bytes; see [`crate::fuzz`].

use super::{Config, SETTINGS};

/// The text of a file, and what became of it read back setting by setting.
pub(crate) fn config(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let mut read = Config::default();
    if let Err(why) = read.read_file("annals.toml".as_ref(), text) {
        assert!(!why.to_string().is_empty());
        return false;
    }
    let mut again = Config::default();
    for setting in &SETTINGS {
        let value = (setting.get)(&read);
        (setting.set)(&mut again, &value).unwrap_or_else(|why| panic!("{} = {value:?}: {why}", setting.key));
        assert_eq!((setting.get)(&again), value, "{}", setting.key);
    }
    assert_eq!(read.to_string().lines().count(), SETTINGS.len());
    true
}
