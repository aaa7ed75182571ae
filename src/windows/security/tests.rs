mod owners;

use std::env;
use std::ptr::null_mut;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use windows_sys::Win32::Foundation::ERROR_ACCESS_DENIED;
use windows_sys::Win32::Security::{
    ACL, Authorization::ConvertSecurityDescriptorToStringSecurityDescriptorW,
    DACL_SECURITY_INFORMATION, GROUP_SECURITY_INFORMATION, ImpersonateLoggedOnUser,
    ImpersonateSelf, LABEL_SECURITY_INFORMATION, LOGON32_LOGON_INTERACTIVE,
    LOGON32_PROVIDER_DEFAULT, LogonUserW, OBJECT_SECURITY_INFORMATION, SecurityIdentification,
    SecurityImpersonation, TokenImpersonationLevel,
};

use super::super::pipe::{self, Instance, Kind};
use super::super::tests::wine::{is_wine, not_run, skipped, skipped_without_model};
use super::super::tests::{assert_reason, run, unique};
use super::*;
use crate::os::windows::ListenOptionsExt;
use crate::{ConnectOptions, ExpectServer, ListenOptions, Listener, Stream};

const PARTS: u32 =
    OWNER_SECURITY_INFORMATION | GROUP_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;

/// Returns the descriptor as the system prints it, which shows a part that our text left out.
fn text(descriptor: &SecurityDescriptor) -> String {
    parts(descriptor, PARTS)
}

fn parts(descriptor: &SecurityDescriptor, parts: OBJECT_SECURITY_INFORMATION) -> String {
    let mut text = null_mut();
    // SAFETY: the descriptor is valid; `text` is a place for a pointer, and null means not wanted.
    check(unsafe {
        ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor.0.0,
            SDDL_REVISION_1,
            parts,
            &mut text,
            null_mut(),
        )
    })
    .expect("a text");
    let _text = LocalMemory(text.cast());
    // SAFETY: the call succeeded, so `text` ends in NUL.
    unsafe { from_wide(text) }
}

#[test]
fn a_private_descriptor_refuses_another_user() {
    let descriptor = SecurityDescriptor::from_sddl("O:SYG:SYD:P(A;;GA;;;BA)").expect("SDDL");
    assert_eq!(text(&descriptor), "O:SYG:SYD:P(A;;GA;;;BA)");
    for (sddl, says) in [
        ("nonsense", "nonsense"),
        ("D:P(A;;GA;;;BA)\0", "NUL"),
        ("", "no D: part"),
        ("O:SY", "no D: part"),
    ] {
        let Err(error) = SecurityDescriptor::from_sddl(sddl) else { panic!("{sddl:?}") };
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{sddl:?}: {error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// Returns `sddl` as Windows prints it. Windows abbreviates the SIDs of some accounts, such as the
/// built-in administrator that CI runs as.
fn as_the_system_writes(sddl: &str) -> String {
    text(&SecurityDescriptor::from_sddl(sddl).expect("SDDL"))
}

#[test]
fn owner_only_names_the_user_alone_and_everyone_may_not_create() {
    let own = own_sid().expect("a user");
    assert!(own.starts_with("S-1-5-"), "{own}");
    let network = if over_network().expect("a token") { "" } else { "(D;;GA;;;NU)" };
    let owned = format!("O:{own}G:{own}D:P{network}");
    let owner = SecurityDescriptor::new(Access::Owner).expect("a descriptor");
    assert_eq!(text(&owner), as_the_system_writes(&format!("{owned}(A;;GA;;;{own})")));
    let everyone = SecurityDescriptor::new(Access::Everyone).expect("a descriptor");
    let expected = format!("{owned}(A;;GA;;;SY)(A;;GA;;;{own})(A;;0x12019b;;;WD)");
    assert_eq!(text(&everyone), as_the_system_writes(&expected));
    assert_eq!(everyone.attributes().bInheritHandle, 0);
}

#[test]
fn apps_in_containers_may_connect_where_that_is_chosen_and_not_create() {
    let label = LABEL_SECURITY_INFORMATION | PARTS;
    for access in [Access::Owner, Access::Everyone] {
        let without = SecurityDescriptor::new(access).expect("a descriptor");
        let with = SecurityDescriptor::chosen(access, true).expect("a descriptor");
        let apps = format!("{}(A;;0x12019b;;;S-1-15-2-1)S:(ML;;NW;;;LW)", text(&without));
        let apps = SecurityDescriptor::from_sddl(&apps).expect("SDDL");
        assert_eq!(parts(&with, label), parts(&apps, label));
    }
    let path = unique();
    let options = ListenOptions::new().app_containers(true);
    let mut listener = Listener::bind_with(&path, &options).expect("a free name");
    run(async {
        let client = Stream::connect(&path).await.expect("a server");
        let _server = listener.accept().await.expect("a client");
        // Only the entry for apps in containers has these rights.
        assert!(text(&of_pipe(&client)).contains("(A;;0x12019b;;;"));
    });
}

/// In a session by SSH or WinRM this process itself counts as the network, and an entry against the
/// network would refuse it.
#[test]
fn a_pipe_made_over_the_network_admits_network_logons() {
    const OWN: &str = "S-1-5-21-1-2-3-1000";
    for access in [Access::Owner, Access::Everyone] {
        let (here, remote) = (sddl(access, OWN, false), sddl(access, OWN, true));
        assert_eq!(here.replace("(D;;GA;;;NU)", ""), remote);
        assert_ne!(here, remote);
        SecurityDescriptor::from_sddl(&remote).expect("a descriptor");
    }
    // No test runs under Wine through a network session, so the answer is known.
    if is_wine() {
        assert!(!over_network().expect("an answer"));
    }
}

/// A service may impersonate one client while it identifies another.
#[test]
fn identifying_a_client_keeps_the_impersonation_of_the_caller() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    let _client = run(Stream::connect(&path)).expect("a server");
    let server = run(listener.accept()).expect("a client");
    let nobody = || {
        let error = thread_token(TOKEN_QUERY).expect_err("somebody is impersonated");
        assert_eq!(code(&error), Some(ERROR_NO_TOKEN), "{error}");
    };
    nobody();
    server.peer_credentials().expect("a peer");
    nobody();
    // SAFETY: it has no preconditions.
    check(unsafe { ImpersonateSelf(SecurityImpersonation) }).expect("an impersonation");
    let asked = server.peer_credentials();
    let token = thread_token(TOKEN_QUERY);
    // SAFETY: it has no preconditions.
    check(unsafe { RevertToSelf() }).expect("an end of it");
    let token = token.expect("the impersonation goes on");
    assert_eq!(token_user(&token).expect("a user"), own_sid().expect("a user"));
    asked.expect("a peer");
    nobody();
}

/// Returns the descriptor of an open pipe, as the system reports it.
fn of_pipe(pipe: &impl AsHandle) -> SecurityDescriptor {
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    // SAFETY: the handle is open as long as the pipe is borrowed, `descriptor` is a place for a
    // pointer, and null means not wanted.
    let code = unsafe {
        GetSecurityInfo(
            raw(pipe),
            SE_KERNEL_OBJECT,
            PARTS,
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            &mut descriptor,
        )
    };
    assert_eq!(code, 0);
    SecurityDescriptor(LocalMemory(descriptor))
}

/// Returns the bytes of the access list in a descriptor.
fn dacl(descriptor: &SecurityDescriptor) -> &[u8] {
    let (mut present, mut defaulted, mut dacl) = (0, 0, null_mut());
    // SAFETY: the descriptor is valid, and the others are places for the results.
    check(unsafe {
        GetSecurityDescriptorDacl(descriptor.0.0, &mut present, &mut dacl, &mut defaulted)
    })
    .expect("a list");
    assert!(present != 0 && !dacl.is_null());
    // SAFETY: `dacl` points to a list in the descriptor.
    let size = unsafe { dacl.cast::<ACL>().read() }.AclSize;
    // SAFETY: the list has this length, and lives as long as the descriptor.
    unsafe { slice::from_raw_parts(dacl.cast(), size.into()) }
}

#[test]
fn both_ends_of_a_live_pipe_have_the_descriptor_that_was_asked_for() {
    let own = own_sid().expect("a user");
    // When Windows makes the pipe, it replaces "all" by all the rights of a file.
    let all = if is_wine() { "GA" } else { "FA" };
    let network = format!("(D;;{all};;;NU)");
    let network = if over_network().expect("a token") { "" } else { &network };
    let owned = format!("O:{own}G:{own}D:P{network}");
    let sddl = format!("O:{own}G:{own}D:P(A;;GA;;;{own})(A;;0x12019b;;;AU)");

    for (options, expected) in [
        (ListenOptions::new(), format!("{owned}(A;;{all};;;{own})")),
        (
            ListenOptions::new().access(Access::Everyone),
            format!("{owned}(A;;{all};;;SY)(A;;{all};;;{own})(A;;0x12019b;;;WD)"),
        ),
        (
            ListenOptions::new().security_descriptor(&sddl),
            format!("O:{own}G:{own}D:P(A;;{all};;;{own})(A;;0x12019b;;;AU)"),
        ),
    ] {
        let path = unique();
        let mut listener = Listener::bind_with(&path, &options).expect("a free name");
        let bytes = SecurityDescriptor::from_sddl(&expected).expect("SDDL");
        let expected = text(&bytes);
        // The first instance, the armed ones, and the instances that replace these.
        for _ in 0..6 {
            let (client, server) = run(async {
                let client = Stream::connect(&path).await.expect("a server");
                (client, listener.accept().await.expect("a client"))
            });

            for stream in [&client, &server] {
                let live = of_pipe(stream);
                assert_eq!(text(&live), expected);
                assert_eq!(dacl(&live), dacl(&bytes));
                let owner = owner_sid(stream).expect("an owner");
                assert_eq!(owner.as_deref(), Some(own));
            }
        }
    }
    let (one, other) = Stream::pair().expect("a pair");
    for stream in [&one, &other] {
        let expected = format!("{owned}(A;;{all};;;{own})");
        assert_eq!(text(&of_pipe(stream)), as_the_system_writes(&expected));
    }
}

#[test]
fn the_client_is_identified_and_not_impersonated() {
    if skipped_without_model("it lets every server act as its clients") {
        return;
    }
    let (client, server) = pipe::pair().map(|(server, client)| (client, server)).expect("a pair");
    let token = client_token(&server).expect("the client's token");
    let mut buffer = TokenInformation::default();
    token_information(&token, TokenImpersonationLevel, &mut buffer).expect("its level");
    assert_eq!(buffer[0] as i32, SecurityIdentification);
    drop(client);
}

/// Logs on as a second user of this machine. `SOCKPIPE_SECOND_USER` has the user's name and
/// password, with a colon between them.
fn second_user() -> Option<OwnedHandle> {
    if skipped("it has one user") {
        return None;
    }
    let Ok(user) = env::var("SOCKPIPE_SECOND_USER") else {
        not_run("SOCKPIPE_SECOND_USER names no other user of this machine");
        return None;
    };
    let (name, password) = user.split_once(':').expect("NAME:PASSWORD");
    let (name, here, password) = (wide(name), wide("."), wide(password));
    let (method, provider) = (LOGON32_LOGON_INTERACTIVE, LOGON32_PROVIDER_DEFAULT);
    let mut token = null_mut();
    // SAFETY: the texts end in NUL; `token` is a place for a handle.
    check(unsafe {
        LogonUserW(name.as_ptr(), here.as_ptr(), password.as_ptr(), method, provider, &mut token)
    })
    .expect("a logon");
    // SAFETY: the call succeeded, so `token` is an open handle, and nothing else owns it.
    Some(unsafe { OwnedHandle::from_raw_handle(token) })
}

/// Runs `what` on this thread as another user.
fn acting_as<T>(user: &OwnedHandle, what: impl FnOnce() -> T) -> T {
    // SAFETY: the token is open.
    check(unsafe { ImpersonateLoggedOnUser(user.as_raw_handle()) }).expect("a right of the tests");
    let outcome = what();
    // SAFETY: it has no preconditions.
    check(unsafe { RevertToSelf() }).expect("this user again");
    outcome
}

/// Returns the kind of a pipe that belongs to the user who makes it, and is open to everyone.
fn for_all() -> Kind {
    Kind::chosen(&ListenOptions::new().security_descriptor("D:P(A;;GA;;;WD)")).expect("SDDL")
}

/// Rows 15 and 17 of the contract. A user who may connect must not be able to receive other
/// clients.
#[test]
fn another_user_connects_with_access_everyone_only() {
    let Some(user) = second_user() else { return };
    let other = token_user(&user).expect("a user");
    let own = own_sid().expect("a user");
    assert_ne!(other, own);

    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    let outcome = acting_as(&user, || run(Stream::connect(&path)));
    assert_reason!(outcome, PermissionDenied, Reason::PeerRefused);
    // The first client that the server sees is another user's.
    let _client = run(Stream::connect(&path)).expect("a server");
    let server = run(listener.accept()).expect("a client");
    assert_eq!(*server.peer_credentials().expect("a peer").user(), UserId::Sid(own.to_owned()));

    let path = unique();
    let options = ListenOptions::new().access(Access::Everyone);
    let mut listener = Listener::bind_with(&path, &options).expect("a free name");
    let mut client = acting_as(&user, || run(Stream::connect(&path))).expect("a server");
    let mut server = run(listener.accept()).expect("a client");
    assert_eq!(*server.peer_credentials().expect("a peer").user(), UserId::Sid(other.clone()));
    run(async {
        client.write_all(b"x").await.expect("a write");
        assert_eq!(server.read_u8().await.expect("a read"), b'x');
    });
    for instance in [Instance::First, Instance::Further] {
        let error = acting_as(&user, || pipe::create(&path, instance, &for_all()));
        let error = error.expect_err("another user's instance of our pipe");
        assert_eq!(code(&error), Some(ERROR_ACCESS_DENIED), "{error}");
    }
}

/// Row 16 of the contract.
#[test]
fn a_server_of_another_user_is_refused() {
    let Some(user) = second_user() else { return };
    let other = token_user(&user).expect("a user");
    let path = unique();
    let _server =
        acting_as(&user, || pipe::create(&path, Instance::First, &for_all())).expect("a free name");
    let error =
        assert_reason!(run(Stream::connect(&path)), PermissionDenied, Reason::UnexpectedServer);
    assert!(error.to_string().contains(&other), "{error}");
    assert_reason!(Listener::bind(&path), AddrInUse, Reason::LiveServer { .. });
    // The refused client used up the first instance: an instance serves one client.
    let _next = acting_as(&user, || pipe::create(&path, Instance::Further, &for_all()))
        .expect("a further instance");
    let options = ConnectOptions::new().expect_server(ExpectServer::User(UserId::Sid(other)));
    run(Stream::connect_with(&path, &options)).expect("the one that is expected");
}

/// Wine identifies each client at once, so this test feeds in what NT would answer.
#[test]
fn a_client_that_the_system_does_not_identify_has_its_own_reason() {
    let system = |code: u32| io::Error::from_raw_os_error(code as i32);
    for (code, reason) in [
        (ERROR_CANNOT_IMPERSONATE, Reason::PeerNotToldYet { process: Some(7) }),
        (ERROR_CANT_OPEN_ANONYMOUS, Reason::AnonymousPeer { process: Some(7) }),
    ] {
        let error = not_told(system(code), Some(7));
        let known = Error::of(&error).expect("an error of ours");
        assert_eq!((known.reason(), known.raw_os_error()), (&reason, Some(code as i32)));
        assert!(error.to_string().starts_with("cannot identify the peer"), "{error}");
    }
    let other = not_told(system(ERROR_ACCESS_DENIED), Some(7));
    assert_eq!(code(&other), Some(ERROR_ACCESS_DENIED));
}
