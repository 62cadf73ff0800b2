//! The report as JSON.

use relay_config::Source;
use serde_json::{Value, json};

use super::{certificate::CertificateCheck, report::CheckReport};

/// The report as one JSON object.
pub(super) fn written(report: &CheckReport) -> String {
    let mut value = json!({
        "file": report.file.as_ref().map(|file| file.display().to_string()),
        "starts": report.starts(),
        "refused": report.refusals(),
        "warnings": report.resolution.warnings.iter()
            .map(|warning| format!("{}{}", warning.place, warning.text)).collect::<Vec<_>>(),
    });
    if let (Some(token), Some(object)) = (&report.token, value.as_object_mut()) {
        object.insert("token".into(), token.json());
    }
    if report.is_understood()
        && let Some(object) = value.as_object_mut()
    {
        let config = &report.resolution.config;
        let paths = |scope: &relay_model::Scope| {
            scope.prefixes().iter().map(|path| path.as_str().to_owned()).collect::<Vec<_>>()
        };
        object.insert(
            "listens".into(),
            json!({
                "address": config.bind.to_string(),
                "transports": ["webtransport", "quic"],
                "versions": config.quic.versions.iter().map(|version| version.alpn()).collect::<Vec<_>>(),
                "others": report.listeners.iter().map(|listener| json!({
                    "name": listener.name,
                    "key": listener.key,
                    "address": listener.place.to_string(),
                    "serves": listener.serves,
                })).collect::<Vec<_>>(),
            }),
        );
        object.insert(
            "anonymous".into(),
            json!({
                "publish": paths(&config.publish),
                "subscribe": paths(&config.subscribe),
            }),
        );
        object.insert(
            "certificates".into(),
            report.certificates.iter().map(certificate).collect::<Vec<_>>().into(),
        );
        object.insert(
            "https_certificates".into(),
            report.web_certificates.iter().map(certificate).collect::<Vec<_>>().into(),
        );
        object.insert("client_authorities".into(), authorities(report));
        object.insert("memory_bytes".into(), report.memory.into());
        object.insert("cache_bytes".into(), report.limits.capacity.into());
        object.insert("ceiling_bytes".into(), report.limits.ceiling.into());
        object.insert("workers".into(), report.workers.into());
        object.insert("drain_seconds".into(), config.drain_timeout.as_secs_f64().into());
        object.insert("settings".into(), settings(report));
    }
    format!("{value:#}\n")
}

fn certificate(certificate: &CertificateCheck) -> Value {
    match certificate {
        CertificateCheck::Made(names) => json!({ "made_at_start": true, "names": names }),
        CertificateCheck::None(why) => json!({ "refused": why }),
        CertificateCheck::Read { file, names, until, days, fingerprint, .. } => json!({
            "file": file, "names": names, "until": until, "days": days, "sha256": fingerprint,
        }),
    }
}

fn authorities(report: &CheckReport) -> Value {
    match &report.authorities {
        None => Value::Null,
        Some(Ok(count)) => json!(count),
        Some(Err(why)) => json!({ "refused": why.to_string() }),
    }
}

fn settings(report: &CheckReport) -> Value {
    let one = |setting: &relay_config::Setting| {
        let source = match &setting.source {
            Source::Flag(name) => json!({ "flag": name }),
            Source::Variable(name) => json!({ "variable": name }),
            Source::File { key, at } => json!({ "key": key, "line": at.line, "column": at.column }),
            Source::Default => json!("default"),
        };
        (setting.key.to_owned(), json!({ "value": setting.value, "source": source }))
    };
    Value::Object(report.resolution.settings.iter().map(one).collect())
}
