//! One line that says what is going on: a spinner on a terminal, plain lines elsewhere.
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// A long step in progress.
pub struct Step {
    bar: Option<ProgressBar>,
    title: String,
    since: Instant,
    said: bool,
}

impl Step {
    /// Starts a step.
    pub fn start(title: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(title.to_string());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, title: title.to_string(), since: Instant::now(), said: false }
    }

    /// Says what the step is at. Elsewhere than on a terminal, the first time a step does something is one line.
    pub fn at(&mut self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}: {what}", self.title)),
            None if !self.said => {
                eprintln!("sila: {} ...", self.title);
                self.said = true;
            }
            None => {}
        }
    }

    /// Ends the step well.
    pub fn done(self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None if self.said => {
                eprintln!("sila: {}: {:.0} s", self.title, self.since.elapsed().as_secs_f32())
            }
            None => {}
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
