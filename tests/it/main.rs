//! A whole server, seen from outside: every call over a real connection.

mod bodies;
mod calls;
mod full_disk;
mod lifecycle;
mod reasons;
mod streams;
mod support;
