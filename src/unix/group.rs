//! Checks whether a directory that its group can write to still belongs to one user only. That is
//! so where each user has a group of its own, and the directory was created under a umask of 002.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Stat, getxattr};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Whether the directory belongs to this user, and no other user is in its group, according to the
/// system's files. If the files leave a doubt, for example about a user of another user database,
/// the answer is `false`.
pub(super) fn has_only_the_owner(dir: &OwnedFd, stat: &Stat) -> bool {
    if stat.st_uid != geteuid().as_raw() {
        return false;
    }
    let Ok(users) = fs::read_to_string("/etc/passwd") else { return false };
    let Ok(groups) = fs::read_to_string("/etc/group") else { return false };
    is_private(&users, &groups, stat.st_uid, stat.st_gid) && has_no_list(dir)
}

/// Whether `group` is the primary group of `user` only, has that user's name, and has no other
/// member. See passwd(5) and group(5).
fn is_private(users: &str, groups: &str, user: u32, group: u32) -> bool {
    let number = |field: Option<&&str>| field.and_then(|field| field.parse().ok());
    let users = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let (mut owner, mut others) = (None, 0);
    for user_s in users.filter(|fields| fields.len() >= 4) {
        let (uid, gid): (Option<u32>, Option<u32>) = (number(user_s.get(2)), number(user_s.get(3)));
        if gid != Some(group) {
            continue;
        }
        match uid == Some(user) {
            true => owner = Some(user_s[0].to_owned()),
            false => others += 1,
        }
    }

    let Some(owner) = owner.filter(|_| others == 0) else { return false };
    let mut groups = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut ours = groups.by_ref().filter(|fields| number(fields.get(2)) == Some(group));
    let Some(fields) = ours.next() else { return false };
    let members = fields.get(3).copied().unwrap_or_default();
    let only_owner = members.split(',').all(|member| member.is_empty() || member == owner);
    fields[0] == owner && only_owner && ours.next().is_none()
}

/// Whether the directory has no access control list, which could admit other users.
fn has_no_list(dir: &OwnedFd) -> bool {
    // The directory may be open with O_PATH, which fgetxattr refuses.
    let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let asked = getxattr(path, "system.posix_acl_access", &mut [0_u8; 0][..]);
    matches!(asked, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::is_private;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n\
                         bob:x:1001:1001::/:/bin/sh\ncarl:x:1002:1001::/:/bin/sh\n";

    #[test]
    fn a_group_with_one_user_of_its_name_is_private() {
        let groups = "root:x:0:\nann:x:1000:\nstaff:x:50:ann\n";
        assert!(is_private(USERS, groups, 1000, 1000));
        assert!(is_private(USERS, groups, 0, 0));
        assert!(is_private(USERS, "ann:x:1000:ann\n", 1000, 1000));
    }

    #[test]
    fn a_group_that_others_may_be_in_is_not_private() {
        for (groups, user, group) in [
            ("ann:x:1000:bob\n", 1000, 1000),
            ("ann:x:1000:ann,bob\n", 1000, 1000),
            ("people:x:1000:\n", 1000, 1000),
            ("ann:x:1000:\nann:x:1000:bob\n", 1000, 1000),
            ("bob:x:1001:\n", 1001, 1001),
            ("ann:x:1000:\nstaff:x:50:ann\n", 1000, 50),
            ("eve:x:1003:\n", 1003, 1003),
            ("", 1000, 1000),
        ] {
            assert!(!is_private(USERS, groups, user, group), "{groups} {user}");
        }
    }
}
