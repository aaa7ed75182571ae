// Lets a program's calls tell sockpipe's model of NT (model.py) what Wine's protocol has no place for. It
// is part of a library that every Rust program loads, and redirects the program's own imports.

#include <windows.h>
#include <string.h>

// A first instance, in place of the default time that clients wait; model.py has the number too.
#define FIRST_INSTANCE 0x4e540001

static HANDLE WINAPI create_pipe(LPCWSTR name, DWORD open, DWORD mode, DWORD most, DWORD out, DWORD in,
                                 DWORD wait, SECURITY_ATTRIBUTES *security) {
    if (open & FILE_FLAG_FIRST_PIPE_INSTANCE) {
        wait = FIRST_INSTANCE;
    }
    return CreateNamedPipeW(name, open, mode, most, out, in, wait, security);
}

static BOOL is_pipe(LPCWSTR name) {
    return name[0] == '\\' && name[1] == '\\' && (name[2] == '.' || name[2] == '?') && name[3] == '\\' &&
           !_wcsnicmp(name + 4, L"pipe\\", 5);
}

// How far the client trusts the server, in place of bits of sharing that pipes have no use for.
static HANDLE WINAPI create_file(LPCWSTR name, DWORD access, DWORD sharing, SECURITY_ATTRIBUTES *security,
                                 DWORD how, DWORD flags, HANDLE template) {
    if (is_pipe(name) && (flags & SECURITY_SQOS_PRESENT)) {
        sharing |= flags & (SECURITY_VALID_SQOS_FLAGS);
    }
    return CreateFileW(name, access, sharing, security, how, flags, template);
}

static void redirect(BYTE *program, const char *name, void *to) {
    IMAGE_NT_HEADERS *headers = (void *)(program + ((IMAGE_DOS_HEADER *)program)->e_lfanew);
    DWORD imports = headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT].VirtualAddress;
    IMAGE_IMPORT_DESCRIPTOR *library = (void *)(program + imports);
    for (; imports && library->Name; library++) {
        IMAGE_THUNK_DATA *named = (void *)(program + library->OriginalFirstThunk);
        IMAGE_THUNK_DATA *used = (void *)(program + library->FirstThunk);
        for (; library->OriginalFirstThunk && named->u1.AddressOfData; named++, used++) {
            IMAGE_IMPORT_BY_NAME *import = (void *)(program + named->u1.AddressOfData);
            DWORD was;
            if (!IMAGE_SNAP_BY_ORDINAL(named->u1.Ordinal) && !strcmp((char *)import->Name, name)) {
                VirtualProtect(used, sizeof *used, PAGE_READWRITE, &was);
                used->u1.Function = (ULONG_PTR)to;
                VirtualProtect(used, sizeof *used, was, &was);
            }
        }
    }
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD why, void *reserved) {
    (void)self;
    (void)reserved;
    if (why == DLL_PROCESS_ATTACH) {
        BYTE *program = (BYTE *)GetModuleHandleW(NULL);
        redirect(program, "CreateNamedPipeW", (void *)create_pipe);
        redirect(program, "CreateFileW", (void *)create_file);
    }
    return TRUE;
}
