//! How far along: a bar or a count on standard error, if that is a terminal and the work lasts.

use std::{fmt, time::Duration};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A bar, or nothing.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

/// Work shorter than this shows none.
const PATIENCE: Duration = Duration::from_millis(400);

impl Progress {
    /// Of so many bytes, or of an unknown number.
    pub(crate) fn bytes(total: Option<u64>) -> Self {
        let known = "{bar:30} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {msg}  {eta} left";
        Self::new(total, known, "{spinner} {bytes}  {binary_bytes_per_sec}  {msg}")
    }

    /// Of so many records, or of an unknown number.
    pub(crate) fn records(total: Option<u64>) -> Self {
        Self::new(
            total,
            "{bar:30} {human_pos}/{human_len} records  {rate}  {eta} left",
            "{spinner} {human_pos} records  {rate}",
        )
    }

    /// Of so many histories.
    pub(crate) fn histories(total: u64) -> Self {
        let known = "{bar:30} {human_pos}/{human_len} histories  {per_sec}  {eta} left";
        Self::new(Some(total), known, known)
    }

    /// Of so many `things`, or of an unknown number.
    pub(crate) fn counted(total: Option<u64>, things: &str) -> Self {
        Self::new(
            total,
            &format!("{{bar:30}} {{human_pos}}/{{human_len}} {things}  {{msg}}"),
            &format!("{{spinner}} {{human_pos}} {things}  {{msg}}"),
        )
    }

    fn new(total: Option<u64>, known: &str, unknown: &str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
        let template = if total.is_some() { known } else { unknown };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", rate));
        }
        Self { bar }
    }

    /// Counts on.
    pub(crate) fn add(&self, count: u64) {
        // Until it has lasted, nothing is drawn; what was counted before is not forgotten.
        if self.bar.elapsed() < PATIENCE {
            self.bar.update(|state| state.set_pos(state.pos() + count));
        } else {
            self.bar.inc(count);
        }
    }

    /// So far of so much.
    pub(crate) fn set(&self, position: u64, total: u64) {
        let set = |state: &mut ProgressState| {
            state.set_pos(position);
            state.set_len(total);
        };
        self.bar.update(set);
    }

    /// Says a word beside the bar.
    pub(crate) fn say(&self, message: impl FnOnce() -> String) {
        if !self.bar.is_hidden() && self.bar.elapsed() >= PATIENCE {
            self.bar.set_message(message());
        }
    }

    /// Takes the bar away, so that lines can be printed.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Records a second, whole ones.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people, never below zero"
)]
fn rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    // What cannot be drawn is not worth a failure.
    let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
}
