//! Which owners of a server a client accepts, and which clients a server accepts.

use windows_sys::Win32::Security::{
    CreateRestrictedToken, DISABLE_MAX_PRIVILEGE, GetSecurityDescriptorOwner, LUA_TOKEN,
    SID_AND_ATTRIBUTES, SetTokenInformation, TOKEN_ALL_ACCESS, WinBuiltinAdministratorsSid,
    WinMediumLabelSid,
};

use super::super::super::connect::check_owner;
use super::*;

/// `windows-sys` defines it only in another module.
const GROUP_INTEGRITY: u32 = 0x20;

fn owner_of(sddl: &str) -> String {
    let descriptor = SecurityDescriptor::from_sddl(sddl).expect("SDDL");
    let (mut owner, mut defaulted) = (null_mut(), 0);
    // SAFETY: the descriptor is valid, and the others are places for the results.
    check(unsafe { GetSecurityDescriptorOwner(descriptor.0.0, &mut owner, &mut defaulted) })
        .expect("an owner");
    // SAFETY: the call succeeded, so `owner` points to a SID in the descriptor, which is not freed
    // yet.
    unsafe { sid_to_string(owner) }.expect("a text")
}

/// Wine has one user, so this test checks owners as Windows' own descriptors name them.
#[test]
fn services_are_expected_beside_a_user_and_not_beside_exactly_one() {
    const SOMEBODY: &str = "S-1-5-21-1-2-3-1001";
    const ANOTHER: &str = "S-1-5-21-1-2-3-1002";
    let own = own_sid().expect("a user");
    let at = r"\\.\pipe\x".parse().expect("an endpoint");
    let user = |sid: &str| UserId::Sid(sid.to_owned());
    let (system, administrators) = (owner_of("O:SYD:P"), owner_of("O:BAD:P"));
    assert_eq!((&*system, &*administrators), ("S-1-5-18", "S-1-5-32-544"));
    let services = [&*system, &*administrators];

    for (expect, named) in [
        (ExpectServer::Default, own),
        (ExpectServer::User(user(SOMEBODY)), SOMEBODY),
        (ExpectServer::Exactly(user(SOMEBODY)), SOMEBODY),
        (ExpectServer::Exactly(user(&system)), &system),
        (ExpectServer::Exactly(user(&administrators)), &administrators),
    ] {
        let strict = matches!(expect, ExpectServer::Exactly(_));
        for owner in services.into_iter().chain([own, SOMEBODY, ANOTHER]) {
            let owner = owner_of(&format!("O:{owner}D:P"));
            let right = owner == named || !strict && services.contains(&&*owner);

            let outcome = check_owner(&at, Some(&owner), &expect);
            assert_eq!(outcome.is_ok(), right, "{owner} for {expect:?}");
            if let Err(error) = outcome {
                let known = Error::of(&error).expect("an error of ours");
                assert_eq!(known.reason(), &Reason::UnexpectedServer, "{error}");
                assert!(error.to_string().contains(&owner), "{error}");
            }
        }
        check_owner(&at, None, &expect).expect_err("nobody is nobody's server");
    }
}

/// Returns the token that UAC gives an administrator's ordinary programs: the same user without the
/// group's rights.
fn without_elevation() -> OwnedHandle {
    // SAFETY: it returns a constant.
    let process = unsafe { GetCurrentProcess() };
    let mut token = null_mut();
    // SAFETY: `token` is a place for a handle.
    check(unsafe { OpenProcessToken(process, TOKEN_ALL_ACCESS, &mut token) }).expect("a token");
    // SAFETY: the call succeeded, so `token` is an open handle, and nothing else owns it.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let (none, flags) = (null_mut(), DISABLE_MAX_PRIVILEGE | LUA_TOKEN);
    let (token, no_groups, mut plain) = (token.as_raw_handle(), null(), null_mut());
    // Windows disables the group because of the flag. Wine needs the group's SID.
    let mut sid = [0_u32; SECURITY_MAX_SID_SIZE as usize / size_of::<u32>()];
    let (place, mut length) = (sid.as_mut_ptr().cast(), SECURITY_MAX_SID_SIZE);
    // SAFETY: null means that no domain is wanted, and the place is aligned and has the given
    // length.
    check(unsafe { CreateWellKnownSid(WinBuiltinAdministratorsSid, none, place, &mut length) })
        .expect("a group");
    let group = SID_AND_ATTRIBUTES { Sid: place, Attributes: 0 };
    // SAFETY: the token is open, the lists are of these lengths, and `plain` is a place for a
    // handle.
    check(unsafe {
        CreateRestrictedToken(token, flags, 1, &group, 0, null(), 0, no_groups, &mut plain)
    })
    .expect("a token");
    // SAFETY: the call succeeded, so it is an open handle, and nothing else owns it.
    let plain = unsafe { OwnedHandle::from_raw_handle(plain) };
    let mut sid = [0_u32; SECURITY_MAX_SID_SIZE as usize / size_of::<u32>()];
    let (place, mut length) = (sid.as_mut_ptr().cast(), SECURITY_MAX_SID_SIZE);
    // SAFETY: null means that no domain is wanted, and the place is aligned and has the given
    // length.
    check(unsafe { CreateWellKnownSid(WinMediumLabelSid, none, place, &mut length) })
        .expect("a level");
    let label = SID_AND_ATTRIBUTES { Sid: place, Attributes: GROUP_INTEGRITY };
    let label = TOKEN_MANDATORY_LABEL { Label: label };
    let (class, size) = (TokenIntegrityLevel, size_of::<TOKEN_MANDATORY_LABEL>() as u32);
    let (handle, label) = (plain.as_raw_handle(), (&raw const label).cast());
    // SAFETY: the token is open, `label` has this class and size, and its SID is alive.
    check(unsafe { SetTokenInformation(handle, class, label, size) })
        .expect("a token of that level");
    plain
}

#[test]
fn an_elevated_server_serves_its_users_ordinary_programs() {
    const MEDIUM: u32 = 0x2000;
    let (own, plain) = (own_sid().expect("a user"), without_elevation());
    for access in [Access::Owner, Access::Everyone] {
        let path = unique();
        let options = ListenOptions::new().access(access);
        let mut listener = Listener::bind_with(&path, &options).expect("a free name");
        let client = acting_as(&plain, || run(Stream::connect(&path)));
        let mut client = client.expect("a server of the same user");
        let mut server = run(listener.accept()).expect("a client");
        let peer = server.peer_credentials().expect("a peer");
        assert_eq!(*peer.user(), UserId::Sid(own.to_owned()));
        // Wine gives every program one level.
        if !is_wine() {
            assert_eq!(client_integrity(&server).expect("a level"), MEDIUM);
        }
        run(async {
            client.write_all(b"x").await.expect("a write");
            assert_eq!(server.read_u8().await.expect("a read"), b'x');
            server.write_all(b"y").await.expect("a write");
            assert_eq!(client.read_u8().await.expect("a read"), b'y');
        });
    }
}
