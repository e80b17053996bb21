import { Failure } from '../errors.ts'

/** A quota that some content has no room in. `bytes`, `versions`: what it would come to. */
export type Overrun = {
  glob: string
  maxBytes: number | null
  maxVersions: number | null
  bytes: number
  versions: number
}

/** The refusal by a quota's trigger (migration 14) that an error of PostgreSQL is; undefined: it is another error. */
export function refusedByQuota(error: unknown): Failure | undefined {
  const { code, detail } = (error ?? {}) as { code?: unknown; detail?: unknown }
  return code === 'PQ001' && typeof detail === 'string'
    ? overQuota(JSON.parse(detail) as Overrun, { cause: error })
    : undefined
}

/** A refusal with the figures, and what can be done about it. */
export function overQuota(overrun: Overrun, { cause }: { cause?: unknown } = {}): Failure {
  const { glob, maxBytes, maxVersions, bytes, versions } = overrun
  const told = [
    ...(maxBytes !== null && bytes > maxBytes
      ? [`may hold ${sizeText(maxBytes)}, and would come to ${sizeText(bytes)}`]
      : []),
    ...(maxVersions !== null && versions > maxVersions
      ? [`may hold ${maxVersions} versions, and would come to ${versions}`]
      : []),
  ]
  return new Failure('QUOTA_EXCEEDED', {
    detail:
      `${glob} ${told.join('; ')}. Delete what is not needed (the room of its blobs is free after the next garbage ` +
      `collection), or have an administrator raise it: packs quota set '${glob}'`,
    about: { quota: overrun },
    cause,
  })
}

/** Bytes in words, and in full where the words are not exact: `1.5 GB (1500000001 bytes)`. */
function sizeText(bytes: number): string {
  const units = ['bytes', 'KB', 'MB', 'GB', 'TB']
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3))
  const short = Number((bytes / 1000 ** power).toFixed(2))
  const words = `${short} ${units[power]}`
  return short * 1000 ** power === bytes ? words : `${words} (${bytes} bytes)`
}
