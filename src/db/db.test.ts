import assert from 'node:assert/strict'
import { after, before, describe, it, mock } from 'node:test'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { waitFor } from '../testing/wait.ts'
import { askedDistinct, batched } from './batch.ts'
import { findLinkedBlobs, type LinkedBlob } from './blobs.ts'
import { ask, askRead, connect, type Database, openDatabase } from './client.ts'
import { findManifests, type ManifestQuestion } from './manifests.ts'
import { migrate } from './migrate.ts'

let databases: TestDatabases
before(async () => {
  databases = await startDatabases()
})
after(() => databases?.stop())

const isUnavailable = (error: unknown) =>
  error instanceof Failure && error.key === 'UNAVAILABLE' && error.headers['retry-after'] !== undefined

describe('migrate', () => {
  it('is done once by ten starts at the same moment', async () => {
    const url = await databases.empty()
    const applied = await Promise.all(Array.from({ length: 10 }, () => migrate(url)))
    assert.equal(applied.filter((names) => names.length > 0).length, 1)
    assert.deepEqual(await migrate(url), [])
  })
  it('refuses a schema that is newer than this version', async () => {
    const url = await databases.fresh()
    const sql = connect(url, { max: 1 })
    await sql`insert into schema_migrations (number, name) values (9999, '9999_future.sql')`
    await sql.end({ timeout: 5 })
    await assert.rejects(migrate(url), /9999_future\.sql.*newer/)
  })
})

describe('ask', () => {
  it('says 503 when the pool stays exhausted, and recovers', async () => {
    // Of three connections, one commits without waiting for the disk, and one of the others is for reads.
    const db = openDatabase(await databases.fresh(), { max: 3, limits: { waitMs: 50, maxWaiting: 2 } })
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    const hold = () => askRead(db, (sql) => released.then(() => sql`select 1`))
    let refused = 0
    const asked = Array.from({ length: 8 }, hold)
    for (const one of asked) one.catch(() => refused++)
    await waitFor('all but those that have a connection to be refused', () => refused === 6, { everyMs: 5 })
    release()
    const answers = await Promise.allSettled(asked)
    assert.equal(answers.filter((answer) => answer.status === 'fulfilled').length, 2)
    for (const answer of answers) if (answer.status === 'rejected') assert.ok(isUnavailable(answer.reason))
    await hold()
    assert.deepEqual({ ...db.use }, { active: 0, waiting: 0, max: 3 })
    await db.close()
  })
  it('says 503 when the answer does not come', async () => {
    const db = openDatabase(await databases.fresh(), { limits: { answerMs: 50 } })
    await assert.rejects(
      ask(db, (sql) => sql`select pg_sleep(1)`),
      isUnavailable,
    )
    await db.close()
  })
  it('says 503 when there is no server, and uses one that comes', async () => {
    const db = openDatabase('postgres://nobody@127.0.0.1:1/none', { limits: { answerMs: 3000 } })
    await assert.rejects(
      ask(db, (sql) => sql`select 1`),
      isUnavailable,
    )
    await db.close()
  })
  it('is back after the server ends every connection', async () => {
    const db = openDatabase(await databases.fresh())
    await ask(db, (sql) => sql`select 1`)
    await assert.rejects(
      ask(db, (sql) => sql`select pg_terminate_backend(pg_backend_pid())`),
      isUnavailable,
    )
    for (let i = 0; i < 20; i++) await ask(db, (sql) => sql`select 1`)
    await db.close()
  })
  it('passes other errors on', async () => {
    const db = openDatabase(await databases.fresh())
    await assert.rejects(
      ask(db, (sql) => sql`select * from nowhere`),
      /nowhere/,
    )
    await db.close()
  })
})

describe('a lock that is not given back', () => {
  /** Rows of numbers, the first of which somebody keeps locked until `release`. */
  async function lockedRow(url: string) {
    const other = connect(url, { max: 1 })
    await other`create table numbers (n int primary key)`
    await other`insert into numbers values (1), (2)`
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    let holding: Promise<unknown> = Promise.resolve()
    await new Promise<void>((resolve) => {
      holding = other.begin(async (tx) => {
        await tx`select from numbers where n = 1 for update`
        resolve()
        await released
      })
    })
    return {
      async release() {
        release()
        await holding
        await other.end()
      },
    }
  }

  it('keeps no read from its connection, and ends the writes that wait with 503', async () => {
    const url = await databases.fresh()
    const db = openDatabase(url, { max: 6, limits: { lockMs: 1_000, waitMs: 2_000 } })
    const { release } = await lockedRow(url)
    const write = () => ask(db, (sql) => sql`update numbers set n = n where n = 1`)
    const inTransaction = () => ask(db, (sql) => sql.begin((tx) => tx`update numbers set n = n where n = 1`))
    let ended = 0
    const writes = Array.from({ length: 20 }, (_, i) => (i % 2 ? write() : inTransaction()).finally(() => ended++))
    const outcomes = Promise.allSettled(writes)
    while (ended < 20) assert.equal((await askRead(db, (sql) => sql`select n from numbers`)).length, 2)
    for (const outcome of await outcomes) assert.ok(outcome.status === 'rejected' && isUnavailable(outcome.reason))
    await release()
    await write()
    await inTransaction()
    assert.deepEqual({ ...db.use }, { active: 0, waiting: 0, max: 6 })
    await db.close()
  })
})

describe('a transaction whose connection is cut', () => {
  const counted = async (db: Database) => (await askRead(db, (sql) => sql`select from numbers`)).length

  it('in the middle of a statement, is 503, and the next goes on', async () => {
    const url = await databases.fresh()
    const other = connect(url, { max: 1 })
    await other`create table numbers (n int)`
    const db = openDatabase(url, { max: 2 })
    for (let i = 0; i < 3; i++) {
      const cut = ask(db, (sql) =>
        sql.begin(async (tx) => {
          await tx`insert into numbers values (${i})`
          const [row] = await tx<{ pid: number }[]>`select pg_backend_pid() as pid`
          const waiting = tx`select pg_sleep(60)`
          await Promise.all([waiting, other`select pg_terminate_backend(${row?.pid ?? 0})`])
        }),
      )
      await assert.rejects(cut, isUnavailable)
      // What ended the old connection may be told once more, on the new one.
      await counted(db).catch((error) => assert.ok(isUnavailable(error), String(error)))
      assert.equal(await counted(db), 0)
    }
    await db.close()
    await other.end()
  })

  it('because it stood still, is 503, gives its locks back, and writes nothing any more', async () => {
    const url = await databases.fresh()
    const other = connect(url, { max: 1, connection: { lock_timeout: 60_000 } })
    await other`create table numbers (n int)`
    await other`insert into numbers values (1)`
    const db = openDatabase(url, { max: 2, limits: { idleMs: 2_000 } })
    let thaw = () => {}
    const frozen = new Promise<void>((resolve) => {
      thaw = resolve
    })
    let after: unknown
    const cut = ask(db, (sql) =>
      sql.begin(async (tx) => {
        await tx`update numbers set n = 2`
        await frozen
        try {
          after = await tx`insert into numbers values (3)`
        } catch (error) {
          after = error
        }
      }),
    )
    const refused = assert.rejects(cut, isUnavailable)
    // Waits for the lock.
    await other`update numbers set n = 4 where n = 1`
    await refused
    // Connects again, so that a statement that comes late would find a connection.
    assert.equal(await counted(db), 1)
    thaw()
    await waitFor('the late statement to end', () => after !== undefined, { everyMs: 1 })
    assert.ok(after instanceof Error)
    assert.deepEqual([...(await other`select n from numbers`)], [{ n: 4 }])
    await db.close()
    await other.end()
  })
})

describe('batched', () => {
  it('answers each its own, in few statements', async () => {
    const sizes: number[] = []
    const double = batched(async (keys: number[]) => {
      sizes.push(keys.length)
      await new Promise(setImmediate)
      return keys.map((key) => key * 2)
    })
    const answers = await Promise.all(Array.from({ length: 450 }, (_, i) => double.load(i)))
    assert.deepEqual(
      answers,
      Array.from({ length: 450 }, (_, i) => i * 2),
    )
    assert.ok(sizes.length <= 4 && Math.max(...sizes) <= 200, String(sizes))
  })
  it('starts a statement only after every question in it was asked', async () => {
    let now = 0
    const stamp = batched(async (keys: number[]) => {
      const started = now
      await new Promise((resolve) => setTimeout(resolve, 1))
      return keys.map(() => started)
    })
    const check = async () => {
      const asked = ++now
      assert.ok((await stamp.load(asked)) >= asked)
    }
    await Promise.all(
      Array.from({ length: 300 }, async (_, i) => {
        await new Promise((resolve) => setTimeout(resolve, i % 7))
        await check()
      }),
    )
  })
  it('fails all that were in the batch, and goes on', async () => {
    let broken = true
    const fragile = batched(async (keys: number[]) => {
      if (broken) throw new Error('down')
      return keys
    })
    const failed = await Promise.allSettled([fragile.load(1), fragile.load(2)])
    assert.deepEqual(
      failed.map((answer) => answer.status),
      ['rejected', 'rejected'],
    )
    broken = false
    assert.equal(await fragile.load(3), 3)
  })
  it('asks the same question of one moment once, and answers all who asked it', async () => {
    const asked: string[][] = []
    const shout = batched((keys: { word: string; loud: boolean }[]) =>
      askedDistinct(
        keys,
        async (each) => {
          asked.push(each.map(({ word, loud }) => `${word} ${loud}`))
          return each.map(({ word, loud }) => (loud ? word.toUpperCase() : word))
        },
        ({ word, loud }) => `${word} ${loud}`,
      ),
    )
    const words = ['a', 'b', 'a', 'c', 'a', 'b']
    const answers = await Promise.all(words.flatMap((word) => [false, true].map((loud) => shout.load({ word, loud }))))
    assert.deepEqual(
      answers,
      words.flatMap((word) => [word, word.toUpperCase()]),
    )
    assert.deepEqual(asked, [['a false', 'a true', 'b false', 'b true', 'c false', 'c true']])
    assert.equal(await shout.load({ word: 'a', loud: true }), 'A')
  })
  /** Gathers for so long; `sizes`: of the batches that left. */
  const resting = (restMs: number, run = async (keys: number[]) => keys) => {
    const sizes: number[] = []
    const counted = (keys: number[]) => {
      sizes.push(keys.length)
      return run(keys)
    }
    return { sizes, gathered: batched(counted, { restMs, most: 5 }) }
  }
  it('rests where it is to, over turns of the event loop, and answers each', async () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const { sizes, gathered } = resting(20)
      const answers: Promise<number>[] = []
      for (let key = 0; key < 4; key++) {
        answers.push(gathered.load(key))
        await new Promise(setImmediate)
      }
      assert.deepEqual(sizes, [])
      mock.timers.tick(20)
      assert.deepEqual([...(await Promise.all(answers)), ...sizes], [0, 1, 2, 3, 4])
      const next = gathered.load(9)
      mock.timers.tick(20)
      assert.equal(await next, 9)
    } finally {
      mock.timers.reset()
    }
  })
  it('rests no longer when it is full', async () => {
    const { sizes, gathered } = resting(2 ** 30)
    const answers = Array.from({ length: 10 }, (_, key) => gathered.load(key))
    assert.deepEqual(await Promise.all(answers), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert.deepEqual(sizes.toSorted(), [5, 5])
  })
  it('settles: sends what rests, and waits for what is under way, also where it fails', async () => {
    let done = 0
    const { gathered } = resting(2 ** 30, async (keys) => {
      await new Promise((resolve) => setTimeout(resolve, 5))
      done += keys.length
      if (keys.includes(7)) throw new Error('down')
      return keys
    })
    const answers = Promise.allSettled(Array.from({ length: 8 }, (_, key) => gathered.load(key)))
    await gathered.settle()
    assert.equal(done, 8)
    await gathered.settle()
    assert.equal((await answers).length, 8)
  })
})

describe('a question by itself is answered as one of many', () => {
  it('about manifests', async () => {
    const sql = connect(await databases.fresh(), { max: 1 })
    const [a, b] = ['a'.repeat(64), 'b'.repeat(64)].map((hex) => `sha256:${hex}` as Digest)
    const [here, there, nowhere] = ['one/here', 'one/there', 'one/nowhere'] as RepositoryName[]
    assert.ok(a && b && here && there && nowhere)
    await sql`insert into repositories (name) values (${here}), (${there})`
    await sql`
      insert into manifests (repository_id, digest, media_type, size, payload)
      select id, ${a}, 'text/a', 3, ${Buffer.from('abc')} from repositories where name = ${here}`
    for (const [tag, due] of [
      ['v1', null],
      ['fresh', '1 hour'],
      ['stale', '-1 hour'],
    ])
      await sql`
        insert into tags (repository_id, name, manifest_digest, recheck_at)
        select id, ${tag as string}, ${a}, now() + ${due as string | null}::interval from repositories where name = ${here}`
    const references = [{ digest: a }, { digest: b }, ...['v1', 'fresh', 'stale', 'none'].map((tag) => ({ tag }))]
    const questions = [here, there, nowhere].flatMap((repository) =>
      references.flatMap((reference) =>
        [undefined, 'all', a, b].map((known) => ({
          ...{ repository, digest: undefined, tag: undefined, known },
          ...reference,
        })),
      ),
    ) as ManifestQuestion[]
    const together = [...(await findManifests(sql, questions))]
    const whole = { digest: a, mediaType: 'text/a', size: 3, payload: Buffer.from('abc') }
    const bare = { ...whole, payload: undefined }
    // By digest, by its tag, and by the tag that need not be asked of its upstream yet.
    const found = [whole, bare, bare, whole]
    const none = new Array(4).fill(undefined)
    assert.deepEqual(together, [
      ...found,
      ...none,
      ...found,
      ...found,
      ...none,
      ...none,
      ...new Array(48).fill(undefined),
    ])
    for (const [i, question] of questions.entries())
      assert.deepEqual(await findManifests(sql, [question]), [together[i]], JSON.stringify(question))
    await sql.end({ timeout: 5 })
  })
  it('about blobs', async () => {
    const sql = connect(await databases.fresh(), { max: 1 })
    const digests = [...'abcde'].map((letter) => `sha256:${letter.repeat(64)}` as Digest)
    const [kept, awaited, late, damaged] = digests
    const [here, there, nowhere] = ['one/here', 'one/there', 'one/nowhere'] as RepositoryName[]
    assert.ok(kept && awaited && late && damaged && here && there && nowhere)
    await sql`insert into repositories (name) values (${here}), (${there})`
    const keyOf = (digest: Digest) => `blobs/sha256/${digest.slice(7, 9)}/${digest.slice(7)}.abcdefghij`
    for (const [digest, due] of [
      [kept, null],
      [awaited, '2 hours'],
      [late, '-2 hours'],
      [damaged, null],
    ] as [Digest, string | null][]) {
      await sql`insert into blobs (digest, size, storage_key) values (${digest}, 3, ${keyOf(digest)})`
      await sql`
        insert into repository_blobs (repository_id, digest, review_at)
        select id, ${digest}, now() + ${due}::interval from repositories where name = ${here}`
    }
    await sql`update blobs set damaged_at = now() where digest = ${damaged}`
    const questions = [here, there, nowhere].flatMap((repository) => digests.map((digest) => ({ repository, digest })))
    const hours = (found: LinkedBlob | undefined) =>
      found && { ...found, reviewDueSeconds: found.reviewDueSeconds && Math.round(found.reviewDueSeconds / 3600) }
    const together = [...(await findLinkedBlobs(sql, questions))].map(hours)
    const blob = (digest: Digest, reviewDueSeconds?: number) => ({ size: 3, key: keyOf(digest), reviewDueSeconds })
    assert.deepEqual(together, [blob(kept), blob(awaited, 2), blob(late, -2), ...new Array(12).fill(undefined)])
    for (const [i, question] of questions.entries())
      assert.deepEqual((await findLinkedBlobs(sql, [question])).map(hours), [together[i]], JSON.stringify(question))
    await sql.end({ timeout: 5 })
  })
})
