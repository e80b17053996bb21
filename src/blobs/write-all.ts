import fs from 'node:fs'
import { promisify } from 'node:util'

const writev = promisify(fs.writev)

/**
 * Writes all of the buffers at `position`. A nearly full disk takes a part and says so only in the count; the next write
 * then fails.
 */
export async function writeAll(fd: number, buffers: readonly Buffer[], position: number): Promise<void> {
  let rest = buffers
  let at = position
  while (rest.length > 0) {
    const { bytesWritten } = await writev(fd, rest, at)
    at += bytesWritten
    rest = without(rest, bytesWritten)
  }
}

/** The same for what only goes into the page cache, at the file's current position. */
export function writeAllSync(fd: number, buffers: readonly Buffer[]): void {
  for (const buffer of buffers) {
    for (let done = 0; done < buffer.length; ) done += fs.writeSync(fd, buffer, done)
  }
}

function without(buffers: readonly Buffer[], bytes: number): Buffer[] {
  let skip = bytes
  return buffers.flatMap((buffer) => {
    const from = Math.min(skip, buffer.length)
    skip -= from
    return from === buffer.length ? [] : [buffer.subarray(from)]
  })
}
