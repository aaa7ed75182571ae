#!/usr/bin/env python3
"""Gives a wineserver NT's answers where it matters to sockpipe: model.py SERVER-FOLDER

SERVER-FOLDER is `server` of an unpacked source of Wine. Each edit names a function and a place in it, and
puts lines of ours there. A place that is not there exactly once ends all: this Wine is another then, and
somebody has to look. What NT does is told by what is written about it: Microsoft's pages, ReactOS'
reconstruction of its pipe driver, and Wine's own tests, which pass on Windows.
"""

import pathlib
import re
import sys

BEFORE, AFTER, INSTEAD = "before", "after", "instead"

# Seen by redirect.c, which has the numbers too: what a program asks of the pipe's driver, and this
# protocol has no place for, goes in where Wine looks at nothing.
FIRST_INSTANCE = "((timeout_t)0x4e540001 * -10000)"
SQOS_PRESENT, SQOS_TRACKING = "0x10", "0x04"

# (what NT does, function or type, place, where, lines)
EDITS = [
    (
        "a name lives as long as either end",
        "pipe_server_destroy",
        r"if \(!--pipe->instances\) unlink_named_object\([^;]*;",
        INSTEAD,
        "--pipe->instances;",
    ),
    (
        "an open finds nothing where no server's end is left, and is checked against the descriptor",
        "named_pipe_open_file",
        r"\bif \(list_empty\(",
        BEFORE,
        """if (!pipe->instances)
        {
            set_error( STATUS_OBJECT_NAME_NOT_FOUND );
            return NULL;
        }
        {
            unsigned int asked = map_access( access, &file_type.mapping ) & ~FILE_CREATE_PIPE_INSTANCE;
            if (!check_object_access( NULL, obj, &asked )) return NULL;
        }""",
    ),
    (
        "a further instance needs the right to add one, and a first one no pipe of that name",
        "create_named_pipe",
        r"\belse\s*\{(?=\s*if \(pipe->maxinstances)",
        AFTER,
        f"""{{
            unsigned int asked = map_access( req->access, &file_type.mapping ) | FILE_CREATE_PIPE_INSTANCE;
            int granted = check_object_access( NULL, &pipe->obj, &asked );
            if (!granted || req->timeout == {FIRST_INSTANCE})
            {{
                set_error( STATUS_ACCESS_DENIED );
                release_object( pipe );
                return;
            }}
        }}""",
    ),
    (
        "generic rights in a pipe's descriptor are those of files",
        "named_pipe_map_access",
        r"^\{",
        AFTER,
        "return map_access( access, &file_type.mapping );",
    ),
    (
        "a pipe without a descriptor belongs to Administrators, with the default list of rights",
        "create_named_pipe",
        r"\bif \(sd\) default_set_sd\(",
        BEFORE,
        """struct { struct security_descriptor sd; struct sid owner; } made = { { 0 } };
        made.owner = builtin_admins_sid;
        made.sd.owner_len = sid_len( &builtin_admins_sid );
        if (!sd) default_set_sd( &pipe->obj, &made.sd, OWNER_SECURITY_INFORMATION |
                                 GROUP_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION );""",
    ),
    (
        "a read in byte mode takes the empty messages behind what it has read, if it has room left",
        "message_queue_read",
        r"while \(write_pos < out_size\);",
        AFTER,
        """if (!(pipe_end->flags & NAMED_PIPE_MESSAGE_STREAM_READ) && out_size && out_size < iosb->out_size)
        {
            while (!list_empty( &pipe_end->message_queue ))
            {
                message = LIST_ENTRY( list_head( &pipe_end->message_queue ), struct pipe_message, entry );
                if (message->iosb->in_size) break;
                wake_message( message, 0 );
                free_message( message );
            }
        }""",
    ),
    # Who a client is: at once where it said so as it opened the pipe; else with what is read of it.
    (
        "a server's end knows what its client lets it know",
        "struct pipe_end",
        r"\bwrite_q;",
        AFTER,
        "unsigned int client_sqos; int client_known, client_looked;",
    ),
    (
        "nothing is known of nobody",
        "init_pipe_end",
        r"^\{",
        AFTER,
        "pipe_end->client_sqos = pipe_end->client_known = pipe_end->client_looked = 0;",
    ),
    (
        "a client that says how far it trusts the server is known at once, if it tells that once for all",
        "named_pipe_open_file",
        r"\bconnection = client;",
        AFTER,
        f"""server->pipe_end.client_sqos = sharing >> 16;
        server->pipe_end.client_known = (sharing >> 16 & ({SQOS_PRESENT} | {SQOS_TRACKING})) == {SQOS_PRESENT};""",
    ),
    (
        "others are known by what is read of them",
        "message_queue_read",
        r"^\{",
        AFTER,
        f"""if ((pipe_end->client_sqos & ({SQOS_PRESENT} | {SQOS_TRACKING})) != {SQOS_PRESENT})
            pipe_end->client_known = 1;""",
    ),
    (
        "it is known whether a server's end was seen to have no client yet",
        "pipe_end_get_file_info",
        r"case FilePipeLocalInformation:",
        AFTER,
        "pipe_end->client_looked = pipe_end->state == FILE_PIPE_LISTENING_STATE;",
    ),
    (
        # NT forgets also who came between that look and the call: microseconds, and here milliseconds.
        "who listens on a pipe that has its client, and has not looked, forgets who that is",
        "pipe_server_ioctl",
        r"case FSCTL_PIPE_LISTEN:",
        AFTER,
        "if (!server->pipe_end.client_looked) server->pipe_end.client_known = 0;",
    ),
    (
        "nobody acts as a client that is not known",
        "pipe_server_ioctl",
        r"case FSCTL_PIPE_IMPERSONATE:",
        AFTER,
        """if (!server->pipe_end.client_known)
        {
            set_error( STATUS_CANNOT_IMPERSONATE );
            return;
        }""",
    ),
    (
        "nor further than it allows",
        "pipe_server_ioctl",
        r"\bSecurityImpersonation\b",
        INSTEAD,
        f"(server->pipe_end.client_sqos & {SQOS_PRESENT} ? server->pipe_end.client_sqos & 3 : SecurityImpersonation)",
    ),
]


def body(text, name):
    """Where the definition of a function, a request or a type begins and ends, from its brace on."""
    if name.startswith("struct "):
        head = rf"^{name}\n(?=\{{)"
    else:
        head = rf"^(?:DECL_HANDLER\({name}\)|\w[^;{{}}]*\b{name}\([^;{{}}]*\))\n(?=\{{)"
    found = list(re.finditer(head, text, re.MULTILINE))
    if len(found) != 1:
        sys.exit(f"model.py: {len(found)} definitions of {name} in this Wine; look at it by hand")
    start = found[0].end()
    return start, text.index("\n}", start)


def edit(text, what, name, place, where, lines):
    start, end = body(text, name)
    found = list(re.finditer(place, text[start:end]))
    if len(found) != 1:
        sys.exit(f"model.py: {len(found)} places in {name} for '{what}'; look at it by hand")
    at = found[0]
    lines = f"\n/* sockpipe's model of NT: {what} */\n{lines}\n"
    before, behind = start + at.start(), start + at.end()
    if where == AFTER:
        before = behind
    elif where == BEFORE:
        behind = before
    return text[:before] + lines + text[behind:]


def main():
    path = pathlib.Path(sys.argv[1]) / "named_pipe.c"
    text = path.read_text()
    for one in EDITS:
        text = edit(text, *one)
    path.write_text(text)


if __name__ == "__main__":
    main()
