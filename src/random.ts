import { randomFillSync } from 'node:crypto'

/** A call for a few bytes costs as much as one for all of these. */
const pool = Buffer.allocUnsafeSlow(4096)
let taken = pool.length

/** Random hex digits, two for each byte. For names that nobody else must hit upon by chance; at most 64 bytes. */
export function randomHex(bytes: number): string {
  if (taken + bytes > pool.length) {
    randomFillSync(pool)
    taken = 0
  }
  taken += bytes
  return pool.toString('hex', taken - bytes, taken)
}
