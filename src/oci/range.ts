/** A part of content, both ends included, as it is sent: `last` is within the size. */
export type ByteRange = { first: number; last: number }

/**
 * What a `Range` header asks of content of this size: a range, `'whole'` where the header is to be ignored (absent,
 * another unit, several ranges, malformed), or `'unsatisfiable'`. Source: RFC 9110, section 14.
 * A range whose end lies before its start is malformed there, but the distribution suite asks for 416: so here.
 */
export function parseRange(header: string | undefined, size: number): ByteRange | 'whole' | 'unsatisfiable' {
  const match = header && /^bytes=(\d*)-(\d*)$/.exec(header.trim())
  if (!match) return 'whole'
  const [, from = '', to = ''] = match
  if (from === '' && to === '') return 'whole'
  if (from === '') {
    const length = Math.min(Number(to), size)
    return length === 0 ? 'unsatisfiable' : { first: size - length, last: size - 1 }
  }
  const first = Number(from)
  const last = to === '' ? size - 1 : Math.min(Number(to), size - 1)
  return first > last ? 'unsatisfiable' : { first, last }
}

/**
 * The `Content-Range` of an upload chunk, `<first>-<last>`: no unit and no total. Undefined where it is malformed.
 * Source: distribution-spec, "Pushing a blob in chunks".
 */
export function parseChunkRange(header: string): ByteRange | undefined {
  const match = /^(\d{1,16})-(\d{1,16})$/.exec(header)
  if (!match) return undefined
  const first = Number(match[1])
  const last = Number(match[2])
  return first <= last ? { first, last } : undefined
}
