import type { VersionRow } from '../../db/packs.ts'

/** A version as JSON text. The document is put in as it is stored: it is never read on the way. */
export function packText(row: VersionRow): string {
  const { digest, size, mediaType, manifestDigest, publishedAt, state, message, replacedBy, channels } = row
  const facts = JSON.stringify({
    ...{ digest, size, mediaType, manifestDigest, publishedAt, state },
    ...(message === null ? {} : { message }),
    ...(replacedBy === null ? {} : { replacedBy }),
    channels,
  })
  return `${row.document.slice(0, -1)},${facts.slice(1)}`
}

/** `exact`: asked for by its version, whose content never changes. What a channel or a range names may. */
export function cacheControl(exact: boolean): string {
  return exact ? 'private, max-age=31536000, immutable' : 'no-cache'
}
