//! Reading access lists, and making files, directories and pipes with one of our own.
//!
//! Invariant: what is made here has its list from the first moment on, belongs to this user, and inherits nothing
//! from the directory it lies in.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::windows::io::{AsRawHandle, BorrowedHandle};
use std::path::Path;
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::ERROR_SUCCESS;
use windows_sys::Win32::Security::Authorization::{
    ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo, SDDL_REVISION_1, SE_FILE_OBJECT,
    SE_KERNEL_OBJECT, SE_OBJECT_TYPE,
};
use windows_sys::Win32::Security::{
    ACCESS_ALLOWED_ACE, ACE_HEADER, ACL, DACL_SECURITY_INFORMATION, GetAce, OBJECT_SECURITY_INFORMATION,
    OWNER_SECURITY_INFORMATION, PSID, SECURITY_ATTRIBUTES,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateDirectoryW, CreateFileW, FILE_CREATION_DISPOSITION, FILE_FLAGS_AND_ATTRIBUTES, FILE_SHARE_MODE,
};
use windows_sys::Win32::System::SystemServices::{
    ACCESS_ALLOWED_ACE_TYPE, ACCESS_ALLOWED_CALLBACK_ACE_TYPE, ACCESS_DENIED_ACE_TYPE,
    ACCESS_DENIED_CALLBACK_ACE_TYPE, ACCESS_DENIED_CALLBACK_OBJECT_ACE_TYPE, ACCESS_DENIED_OBJECT_ACE_TYPE,
};

use super::acl::{Access, Effect, Entry};
use super::calls::{Local, done, owned, wide, wide_path};
use super::identity::{own_sid, sid_text};

/// The owner and the list of an open file or directory; the handle permits to read them (`READ_CONTROL`).
pub(super) fn access(file: BorrowedHandle<'_>) -> io::Result<Access> {
    let asked = OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;
    let found = Descriptor::of(file, SE_FILE_OBJECT, asked)?;
    let list = found.list;
    // SAFETY: the list is one of the descriptor's, which lives until the end of this function.
    let entries = if list.is_null() { None } else { Some(unsafe { entries(list) }?) };
    Ok(Access { owner: found.owner()?, entries })
}

/// The owner of a pipe; the handle permits to read it.
pub(super) fn owner(pipe: BorrowedHandle<'_>) -> io::Result<String> {
    Descriptor::of(pipe, SE_KERNEL_OBJECT, OWNER_SECURITY_INFORMATION)?.owner()
}

/// What the system says about who may use something that is open.
struct Descriptor {
    owner: PSID,
    /// Null where none was asked for, or where everybody may do everything.
    list: *mut ACL,
    /// What the two point into.
    _memory: Local,
}

impl Descriptor {
    fn of(
        object: BorrowedHandle<'_>,
        kind: SE_OBJECT_TYPE,
        asked: OBJECT_SECURITY_INFORMATION,
    ) -> io::Result<Self> {
        let (mut owner, mut list, mut descriptor): (PSID, *mut ACL, *mut c_void) =
            (null_mut(), null_mut(), null_mut());
        // SAFETY: the handle is open, and the pointers asked for are written to.
        let status = unsafe {
            GetSecurityInfo(
                object.as_raw_handle(),
                kind,
                asked,
                &raw mut owner,
                null_mut(),
                &raw mut list,
                null_mut(),
                &raw mut descriptor,
            )
        };
        if status != ERROR_SUCCESS {
            return Err(io::Error::from_raw_os_error(status.cast_signed()));
        }
        Ok(Self { owner, list, _memory: Local(descriptor) })
    }

    fn owner(&self) -> io::Result<String> {
        if self.owner.is_null() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "something without an owner"));
        }
        // SAFETY: it points into the descriptor's memory, which lives as long as this.
        unsafe { sid_text(self.owner) }
    }
}

/// # Safety
/// It points to a valid list.
unsafe fn entries(list: *const ACL) -> io::Result<Vec<Entry>> {
    // SAFETY: the list is valid by this function's contract.
    let count = u32::from(unsafe { (*list).AceCount });
    // SAFETY: each of its entries is there.
    (0..count).map(|index| unsafe { entry(list, index) }).collect()
}

/// # Safety
/// It points to a valid list, which has such an entry.
unsafe fn entry(list: *const ACL, index: u32) -> io::Result<Entry> {
    let mut found = null_mut();
    // SAFETY: the list is valid by this function's contract, and the pointer is written to.
    done(unsafe { GetAce(list, index, &raw mut found) })?;
    // SAFETY: every entry begins with a header.
    let header = unsafe { *found.cast::<ACE_HEADER>() };
    let effect = match u32::from(header.AceType) {
        // Those with a condition are laid out like those without, and the condition may hold.
        ACCESS_ALLOWED_ACE_TYPE | ACCESS_ALLOWED_CALLBACK_ACE_TYPE => Effect::Allow,
        ACCESS_DENIED_ACE_TYPE
        | ACCESS_DENIED_OBJECT_ACE_TYPE
        | ACCESS_DENIED_CALLBACK_ACE_TYPE
        | ACCESS_DENIED_CALLBACK_OBJECT_ACE_TYPE => Effect::Deny,
        _ => Effect::Unknown,
    };
    let (rights, sid) = match effect {
        Effect::Allow => {
            let entry: *const ACCESS_ALLOWED_ACE = found.cast();
            // SAFETY: by its type it has this layout; its SID begins at `SidStart`.
            unsafe { ((*entry).Mask, sid_text((&raw const (*entry).SidStart).cast_mut().cast())?) }
        }
        Effect::Deny => (0, String::new()),
        Effect::Unknown => (0, format!("an entry of the unknown kind {}", header.AceType)),
    };
    Ok(Entry { effect, flags: header.AceFlags.into(), rights, sid })
}

/// What is made for this user alone. The system may, too: it does anyway, and its backups need not stumble.
pub(super) struct OwnerOnly {
    descriptor: Local,
}

// SAFETY: it is not changed once it is made.
unsafe impl Send for OwnerOnly {}
// SAFETY: as above.
unsafe impl Sync for OwnerOnly {}

impl std::fmt::Debug for OwnerOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnerOnly")
    }
}

impl OwnerOnly {
    /// For a pipe, which the system has no business with.
    pub(super) fn pipe() -> io::Result<Self> {
        let own = own_sid()?;
        Self::parse(&format!("O:{own}D:P(A;;GA;;;{own})"))
    }

    /// For a file.
    pub(super) fn file() -> io::Result<Self> {
        Self::with("")
    }

    /// For a directory: what is made in it is for this user alone, too.
    pub(super) fn directory() -> io::Result<Self> {
        Self::with("OICI")
    }

    fn with(flags: &str) -> io::Result<Self> {
        let own = own_sid()?;
        Self::parse(&format!("O:{own}D:P(A;{flags};FA;;;{own})(A;{flags};FA;;;SY)"))
    }

    /// What a text of the security descriptor definition language says.
    fn parse(text: &str) -> io::Result<Self> {
        let text = wide(text)?;
        let mut descriptor = null_mut();
        // SAFETY: the text ends with NUL, and the pointer is written to.
        done(unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                null_mut(),
            )
        })?;
        Ok(Self { descriptor: Local(descriptor) })
    }

    /// For a call that makes something which other processes do not inherit; good for as long as this is.
    pub(super) fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: self.descriptor.0,
            bInheritHandle: 0,
        }
    }
}

/// How a file is opened.
pub(super) struct Opening {
    pub(super) access: u32,
    pub(super) share: FILE_SHARE_MODE,
    pub(super) disposition: FILE_CREATION_DISPOSITION,
    pub(super) flags: FILE_FLAGS_AND_ATTRIBUTES,
}

impl Opening {
    /// Opens what is there.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        self.with(path, null())
    }

    /// Opens what is there, or makes it for this user alone, as the disposition says.
    pub(super) fn open_private(&self, path: &Path) -> io::Result<File> {
        let owner_only = OwnerOnly::file()?;
        let attributes = owner_only.attributes();
        self.with(path, &raw const attributes)
    }

    fn with(&self, path: &Path, attributes: *const SECURITY_ATTRIBUTES) -> io::Result<File> {
        let path = wide_path(path)?;
        // SAFETY: the path ends with NUL; the attributes are null or live longer than the call; the handle is
        // new and not inherited.
        let handle = unsafe {
            owned(CreateFileW(
                path.as_ptr(),
                self.access,
                self.share,
                attributes,
                self.disposition,
                self.flags,
                null_mut(),
            ))
        }?;
        Ok(File::from(handle))
    }
}

/// Makes a directory for this user alone.
pub(super) fn create_private_dir(path: &Path) -> io::Result<()> {
    let (path, owner_only) = (wide_path(path)?, OwnerOnly::directory()?);
    let attributes = owner_only.attributes();
    // SAFETY: the path ends with NUL, and the attributes live longer than the call.
    done(unsafe { CreateDirectoryW(path.as_ptr(), &raw const attributes) })
}
