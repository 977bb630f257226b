//! What a dry run shows.

use std::collections::BTreeMap;

use skyloom::cloud::{ChangeKind, Preview, Reservation, ShownPlan};
use skyloom_model::{JobId, Timestamp};
use skyloom_scheduler::fleet::Report;

use crate::error::Result;
use crate::out::{self, Format, Printer, Row};
use crate::text::{age, clean, clean_lines, mib};

/// Prints a preview instead of the answer to a change.
pub(crate) fn print(printer: Printer, preview: &Preview) -> Result<()> {
    match printer.format {
        Format::Table | Format::Wide => out::raw(&text(preview))?,
        _ => {
            let name = preview.plan.map(|id| id.to_string()).unwrap_or_default();
            printer.document(&out::json(preview)?, &name)?;
        }
    }
    out::message(&match preview.plan {
        Some(id) => format!("nothing was done; to do exactly this, within a day: skyloom plan apply {id}"),
        None => "nothing was done".to_owned(),
    });
    Ok(())
}

/// A preview for people.
pub(crate) fn text(preview: &Preview) -> String {
    let mut text = match (&preview.flow, &preview.subject) {
        (Some(flow), Some(subject)) => format!("{flow} of {}\n", clean(subject.name.as_str())),
        _ => format!("{}\n", clean(&preview.operation)),
    };
    section(&mut text, "Steps", tree(preview));
    if let Some(reservation) = &preview.reservation {
        section(&mut text, "Room", room(reservation));
    }
    section(&mut text, "Why there", why(preview));
    let records = preview.changes.iter().map(|change| {
        let verb = match change.change {
            ChangeKind::Created => "make",
            ChangeKind::Changed => "change",
            ChangeKind::Deleted => "remove",
        };
        let id = change.id.map(|id| id.to_string());
        let which = change.name.clone().or(id).unwrap_or_default();
        format!("{verb:7} {:9} {which}", change.kind)
    });
    section(&mut text, "Records", records.collect());
    section(&mut text, "Then", preview.later.clone());
    section(&mut text, "Risks", preview.risks.clone());
    text
}

fn section(text: &mut String, head: &str, lines: Vec<String>) {
    if lines.is_empty() {
        return;
    }
    text.push_str(&format!("\n{head}\n"));
    for line in lines {
        text.push_str(&format!("  {}\n", clean(&line).trim_end()));
    }
}

/// The steps, each below those that it comes after.
fn tree(preview: &Preview) -> Vec<String> {
    let mut depths: BTreeMap<&JobId, usize> = BTreeMap::new();
    let mut rows = Vec::new();
    for step in &preview.steps {
        let before = step.after.iter().filter_map(|id| depths.get(id)).max();
        let depth = before.map_or(0, |depth| depth + 1);
        depths.insert(&step.id, depth);
        let name = format!("{:indent$}· {}", "", step.id, indent = depth * 2);
        rows.push((name, format!("{} ({})", step.title, step.place)));
    }
    let width = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let line = |(name, about): (String, String)| {
        let gap = width - name.chars().count() + 2;
        format!("{name}{:gap$}{about}", "")
    };
    rows.into_iter().map(line).collect()
}

fn room(reservation: &Reservation) -> Vec<String> {
    let taken = reservation.resources;
    let mut lines = vec![format!(
        "{} vCPU, {}, {} GiB disk",
        taken.vcpus,
        mib(taken.memory_mib),
        taken.disk_gib
    )];
    if let Some(host) = &reservation.host {
        let (after, all) = (host.used_after, host.capacity);
        lines.push(format!(
            "on {}: then {} of {} vCPU, {} of {}, {} of {} GiB disk are taken",
            host.name,
            after.vcpus,
            all.vcpus,
            mib(after.memory_mib),
            mib(all.memory_mib),
            after.disk_gib,
            all.disk_gib
        ));
        lines.extend(host.nearly_full.iter().map(|what| format!("nearly full: {what}")));
    }
    lines
}

fn why(preview: &Preview) -> Vec<String> {
    let Some(placement) = &preview.placement else {
        return Vec::new();
    };
    let text = match serde_json::from_value::<Report>(placement.clone()) {
        Ok(report) => report.text(),
        Err(_) => out::to_yaml(placement),
    };
    clean_lines(&text).lines().map(str::to_owned).collect()
}

impl Row for ShownPlan {
    const HEAD: &'static [&'static str] = &["ID", "OPERATION", "SUBJECT", "STEPS", "APPLIED", "AGE"];
    const WIDE: &'static [&'static str] = &["ACTOR", "EXPIRES"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let subject = self.preview.subject.as_ref();
        vec![
            self.id.to_string(),
            self.preview.operation.clone(),
            subject.map(|s| s.name.to_string()).unwrap_or_default(),
            self.preview.steps.len().to_string(),
            self.applied.map(|task| task.to_string()).unwrap_or_default(),
            age(now, self.at),
            self.actor.name.clone(),
            self.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        ]
    }
    fn name(&self) -> String {
        self.id.to_string()
    }
}
