//! Names of user accounts, for messages about files and ports that a user may not use.

use std::{fs, path::Path};

/// Effective user of this process.
pub fn user() -> String {
    named(Path::new("/"), rustix::process::geteuid().as_raw())
}

/// Formats a user id with its name in `etc/passwd` below `root`.
pub fn named(root: &Path, uid: u32) -> String {
    let users = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    match name {
        Some(name) => format!("{} (uid {uid})", name.escape_default()),
        None => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_where_the_system_knows_the_name() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(
            root.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nmoq:x:77:7::/:/bin/false\n",
        )
        .unwrap();
        assert_eq!(named(root.path(), 77), "moq (uid 77)");
        assert_eq!(named(root.path(), 78), "uid 78");
    }
}
