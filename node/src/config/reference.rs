//! `${env:NAME}` and `${file:PATH}`: secrets stay where they are kept.

use crate::error::{Error, ErrorKind, Result};

/// Puts in what `${env:NAME}` and `${file:PATH}` in `text` stand for.
///
/// Called on the node that uses the value, when it uses it; the result is never
/// stored, logged or sent. `${file:}` drops one newline at the end.
pub fn resolve(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (reference, behind) = after
            .split_once('}')
            .ok_or_else(|| Error::new(ErrorKind::Config, "a `${` is not closed by a `}`"))?;
        out.push_str(&look_up(reference)?);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

fn look_up(reference: &str) -> Result<String> {
    let refuse = |why: String| Error::new(ErrorKind::Config, why);
    match reference.split_once(':') {
        Some(("env", name)) => environment(name).ok_or_else(|| {
            refuse(format!(
                "environment variable {name} is not set for this node; set it and restart"
            ))
        }),
        Some(("file", path)) => std::fs::read_to_string(path)
            .map(|text| text.strip_suffix('\n').unwrap_or(&text).to_owned())
            .map_err(|error| refuse(format!("read the file {path} on this node")).because(error)),
        _ => Err(refuse(format!(
            "`${{{reference}}}` is neither `${{env:NAME}}` nor `${{file:PATH}}`"
        ))),
    }
}

#[expect(clippy::disallowed_methods, reason = "config is where the environment is read")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_put_in_and_the_rest_is_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let text = format!("user:${{file:{}}}@host", file.path().display());
        assert_eq!(resolve(&text).unwrap(), "user:s3cret@host");
        assert_eq!(resolve("plain $5").unwrap(), "plain $5");
    }

    #[test]
    fn a_missing_reference_is_named() {
        let error = resolve("${env:TIDEGATE_NO_SUCH}").unwrap_err().to_string();
        assert!(error.contains("TIDEGATE_NO_SUCH"), "{error}");
        assert!(resolve("${vault:x}").is_err());
        assert!(resolve("${env:X").is_err());
    }
}
