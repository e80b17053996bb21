import { createHash, randomUUID } from 'node:crypto'
import { endHold, hold, prolongHold } from '../db/backup-holds.ts'
import { ask, connect, type Transaction } from '../db/client.ts'
import {
  appliedMigrations,
  copyOut,
  type DumpedSequence,
  type DumpedTable,
  dumpedBlobs,
  dumpedSequences,
  dumpedTables,
} from '../db/dump.ts'
import type { Deps } from '../deps.ts'
import { unavailable } from '../errors.ts'
import { algorithmOf, type Digest, digestSoFar, hexOf } from '../oci/digest.ts'

// A backup is a list of files, in this order:
//
//   backup.json            what it is: format, schema, tables with their columns, sequences
//   tables/<name>/<n>      the rows, in COPY's text form, in pieces of some megabytes; a table after those it refers to
//   blobs/<algorithm>/<hex>  the content, each file its digest's bytes      (with blobs)
//   objects/<n>            or the list of it: JSON lines of digest, size, key (without)
//   checksums.json         the sha256 of every file but content, counts, and what of the content was missing or wrong
//
// All of it is one snapshot of the database (repeatable read). A hold that is taken before keeps the objects which the
// snapshot names from being deleted meanwhile (db/backup-holds.ts). A file that is cut off lacks its checksums.

export const backupFormat = { name: 'packs-registry-backup', number: 1 } as const

/** The first file. */
export type BackupHead = {
  format: typeof backupFormat.name
  formatVersion: number
  createdAt: string
  schema: { number: number; name: string }
  migrations: number[]
  tables: DumpedTable[]
  sequences: DumpedSequence[]
  blobs: 'included' | 'listed'
}

/** The last file. `files`: sha256 in hex by name. */
export type BackupSums = {
  files: Record<string, string>
  blobs: number
  bytes: number
  missing: Digest[]
  damaged: Digest[]
}

/** A file of a backup. Its content is read to the end before the next one is asked for. */
export type BackupFile = { name: string; size: number; content: AsyncIterable<Buffer> | Buffer }

export type BackupOptions = {
  withBlobs: boolean
  /** How long the store is kept as it is once the backup has been read, in seconds: while a bucket is replicated. */
  holdSeconds?: number
  signal?: AbortSignal | undefined
}

/** A backup that dies lets go of the store after so long. */
const leaseSeconds = 600
const renewMs = 60_000
const pieceBytes = 4 * 1024 * 1024

/** Makes a backup, file by file. Answers the last one's content when all were read. */
export async function* makeBackup(
  deps: Deps,
  databaseUrl: string,
  { withBlobs, holdSeconds = 0, signal }: BackupOptions,
): AsyncGenerator<BackupFile, BackupSums> {
  const id = randomUUID()
  const lost = new AbortController()
  await ask(deps.db, (sql) => hold(sql, id, leaseSeconds))
  const heart = setInterval(() => {
    ask(deps.db, (sql) => prolongHold(sql, id, leaseSeconds)).then(
      (held) => held || lost.abort(new Error('the hold on the store has ended: objects may have been deleted')),
      (error) => deps.log.warn({ error }, 'the hold of a backup could not be prolonged'),
    )
  }, renewMs)
  // A connection of its own: no statement of this takes a bounded time, and between two it may be idle for long.
  const sql = connect(databaseUrl, { max: 1, connection: { idle_in_transaction_session_timeout: 0 } })
  try {
    const connection = await sql.reserve()
    await connection`begin isolation level repeatable read read only`
    const both = signal ? AbortSignal.any([signal, lost.signal]) : lost.signal
    const sums = yield* files(deps, connection as unknown as Transaction, withBlobs, both)
    await connection`commit`
    await ask(deps.db, (pool) => (holdSeconds > 0 ? hold(pool, id, holdSeconds) : endHold(pool, id)))
    return sums
  } finally {
    clearInterval(heart)
    await sql.end({ timeout: 5 })
  }
}

async function* files(
  deps: Deps,
  tx: Transaction,
  withBlobs: boolean,
  signal: AbortSignal,
): AsyncGenerator<BackupFile, BackupSums> {
  const sums: BackupSums = { files: {}, blobs: 0, bytes: 0, missing: [], damaged: [] }
  const file = (name: string, content: Buffer): BackupFile => {
    signal.throwIfAborted()
    sums.files[name] = createHash('sha256').update(content).digest('hex')
    return { name, size: content.length, content }
  }
  const migrations = await appliedMigrations(tx)
  const tables = await dumpedTables(tx)
  const head: BackupHead = {
    ...{ format: backupFormat.name, formatVersion: backupFormat.number, createdAt: new Date().toISOString() },
    schema: migrations.at(-1) ?? { number: 0, name: '' },
    migrations: migrations.map(({ number }) => number),
    ...{ tables, sequences: await dumpedSequences(tx), blobs: withBlobs ? 'included' : 'listed' },
  }
  yield file('backup.json', Buffer.from(`${JSON.stringify(head, undefined, 1)}\n`))
  for (const table of tables) {
    let n = 0
    for await (const piece of inPieces(copyOut(tx, table))) yield file(`tables/${table.name}/${++n}`, piece)
  }
  if (withBlobs) yield* contents(deps, tx, sums, signal)
  else {
    let n = 0
    for await (const piece of inPieces(listed(tx, sums))) yield file(`objects/${++n}`, piece)
  }
  yield file('checksums.json', Buffer.from(`${JSON.stringify(sums, undefined, 1)}\n`))
  return sums
}

/** Pieces put together to some megabytes. */
async function* inPieces(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let waiting: Buffer[] = []
  let bytes = 0
  for await (const piece of source) {
    waiting.push(piece)
    bytes += piece.length
    if (bytes < pieceBytes) continue
    yield Buffer.concat(waiting)
    waiting = []
    bytes = 0
  }
  if (bytes > 0) yield Buffer.concat(waiting)
}

async function* listed(tx: Transaction, sums: BackupSums): AsyncGenerator<Buffer> {
  for await (const rows of dumpedBlobs(tx))
    for (const { digest, size, key, damaged } of rows) {
      sums.blobs++
      sums.bytes += size
      if (damaged) sums.damaged.push(digest)
      yield Buffer.from(`${JSON.stringify({ digest, size, key })}\n`)
    }
}

async function* contents(
  deps: Deps,
  tx: Transaction,
  sums: BackupSums,
  signal: AbortSignal,
): AsyncGenerator<BackupFile> {
  for await (const rows of dumpedBlobs(tx))
    for (const { digest, size, key, damaged } of rows) {
      signal.throwIfAborted()
      // What is damaged already is told, and not carried along.
      const isWhole = !damaged && (await deps.blobs.size(key)) === size
      const stream = isWhole ? await deps.blobs.open(key) : undefined
      if (!stream) {
        ;(damaged ? sums.damaged : sums.missing).push(digest)
        continue
      }
      sums.blobs++
      sums.bytes += size
      const name = `blobs/${algorithmOf(digest)}/${hexOf(digest)}`
      yield { name, size, content: checked(stream, { digest, size }, sums) }
    }
}

/** Passes content on and says where it is not what its digest says; a file of it is as long as announced, or none. */
async function* checked(
  stream: AsyncIterable<Buffer>,
  { digest, size }: { digest: Digest; size: number },
  sums: BackupSums,
): AsyncGenerator<Buffer> {
  const hash = createHash(algorithmOf(digest))
  let sent = 0
  for await (const bytes of stream) {
    sent += bytes.length
    hash.update(bytes)
    yield bytes
  }
  if (sent !== size) throw unavailable('blob store', new Error(`${digest} ended after ${sent} of ${size} bytes`))
  if (digestSoFar(algorithmOf(digest), hash) !== digest) sums.damaged.push(digest)
}
