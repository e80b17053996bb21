/** What the operating system says of files, in words, and what to do. */
const troubles: Record<string, string> = {
  ENOENT: 'does not exist',
  EACCES: 'may not be opened by you: ask for the right to it, or name another',
  EPERM: 'may not be changed by you: ask for the right to it, or name another',
  EISDIR: 'is a folder; a file is needed',
  ENOTDIR: 'is not a folder, or is not in one',
  EEXIST: 'exists already',
  ENOSPC: 'has no room left, the disk is full: make room, or name another disk',
  EDQUOT: 'has no room left, your quota on the disk is used up: make room, or name another disk',
  EROFS: 'is on a disk that cannot be written to: name another',
  EIO: 'cannot be read or written: its disk fails',
  ENAMETOOLONG: 'has a name that is too long',
  ELOOP: 'is a link that leads to itself, or one that is not followed here',
}

/** What went wrong with a file, in words; undefined where it is about something else, or has no words here. */
export function fileTrouble(error: unknown): string | undefined {
  const { code = '', path, syscall = '' } = Object(error) as NodeJS.ErrnoException
  const trouble = troubles[code]
  // Of a file that is open already its name is not told; and networks have some of these codes too.
  const name = path ?? (/^(?:read|write|writev|fsync|fdatasync|ftruncate)$/.test(syscall) ? 'the file' : undefined)
  return trouble && name !== undefined ? `${name || '""'} ${trouble}` : undefined
}
