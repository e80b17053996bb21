import { isObject } from '../oci/descriptor.ts'
import { parseDigest } from '../oci/digest.ts'
import { type BackupHead, type BackupSums, backupFormat } from './backup.ts'

// What a backup says of itself: its first file and its last. Until they were looked at, they are any JSON, or none.

/** Why a backup cannot be restored, in words that say what to do. */
export class RestoreRefused extends Error {
  override name = 'RestoreRefused'
  readonly code: string = 'RESTORE_REFUSED'
}

/** A backup is not what was written once: bytes of it were changed, or are missing. */
export class BackupDamaged extends RestoreRefused {
  override readonly code = 'BACKUP_DAMAGED'
}

type Check = (value: unknown) => boolean
type Shape<Document> = { [field in keyof Document]: Check }

const text: Check = (value) => typeof value === 'string'
const count: Check = (value) => Number.isSafeInteger(value) && Number(value) >= 0
const digest: Check = (value) => typeof value === 'string' && parseDigest(value) !== undefined
const moment: Check = (value) => typeof value === 'string' && !Number.isNaN(Date.parse(value))
/** Of tables, columns and sequences. */
const identifier: Check = (value) => typeof value === 'string' && /^[a-z_][a-z0-9_]*$/.test(value)
const listOf =
  (entry: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(entry)
const filled =
  (list: Check): Check =>
  (value) =>
    list(value) && (value as unknown[]).length > 0
const having =
  (fields: Record<string, Check>): Check =>
  (value) =>
    isObject(value) && Object.entries(fields).every(([field, check]) => check(value[field]))

const headShape: Shape<BackupHead> = {
  format: text,
  formatVersion: count,
  createdAt: moment,
  schema: having({ number: count, name: text }),
  migrations: filled(listOf(count)),
  tables: filled(listOf(having({ name: identifier, columns: filled(listOf(identifier)) }))),
  sequences: listOf(having({ name: identifier, last: (value) => value === null || count(value) })),
  blobs: (value) => value === 'included' || value === 'listed',
}

const sumsShape: Shape<BackupSums> = {
  files: (value) => isObject(value) && Object.values(value).every(text),
  blobs: count,
  bytes: count,
  missing: listOf(digest),
  damaged: listOf(digest),
}

/** Reads backup.json. Throws RestoreRefused. */
export function readHead(bytes: Buffer): BackupHead {
  const head = parsed('backup.json', bytes)
  const { format, formatVersion } = isObject(head) ? head : {}
  if (format !== backupFormat.name) throw new RestoreRefused('this is no backup of this registry')
  if (formatVersion !== backupFormat.number)
    throw new RestoreRefused(
      `this backup has format ${JSON.stringify(formatVersion)}; this version reads ${backupFormat.number}. Restore it with the version that made it`,
    )
  return shaped<BackupHead>('backup.json', head, headShape)
}

/** Reads checksums.json. Throws BackupDamaged. */
export function readSums(bytes: Buffer): BackupSums {
  return shaped<BackupSums>('checksums.json', parsed('checksums.json', bytes), sumsShape)
}

function parsed(name: string, bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString())
  } catch (cause) {
    throw new BackupDamaged(`${name} of the backup is not JSON: it is damaged. Nothing was restored`, { cause })
  }
}

function shaped<Document>(name: string, value: unknown, shape: Shape<Document>): Document {
  if (!isObject(value))
    throw new BackupDamaged(`${name} of the backup is no object: it is damaged. Nothing was restored`)
  for (const [field, check] of Object.entries<Check>(shape))
    if (!check(value[field]))
      throw new BackupDamaged(
        `${JSON.stringify(field)} in ${name} of the backup is not what it should be: it is damaged. Nothing was restored`,
      )
  return value as Document
}
