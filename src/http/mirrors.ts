import * as v from 'valibot'
import { isCron } from '../cron.ts'
import { askRead } from '../db/client.ts'
import { type ListedRun, lastReport, listMirrors, listRuns, type RunRow } from '../db/mirrors.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { parseName, type RepositoryName } from '../oci/name.ts'
import { parseTag } from '../oci/reference.ts'
import { boundedList } from '../packs/bounded-list.ts'
import { packTypes } from '../packs/pack.ts'
import { patternGrammar } from '../packs/selection.ts'
import { parseRange } from '../packs/version.ts'
import {
  changeMirror,
  createMirror,
  type Mirror,
  type MirrorInput,
  mirrorOf,
  removeMirror,
  requestRun,
} from '../registry/mirrors.ts'
import { requireAccess } from './access.ts'
import { jsonBody, nameParam, noQuery, query, queryOf, switchSchema } from './packs/request.ts'
import type { Routes } from './routes.ts'

const nameSchema = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9]+(?:[._-][a-z0-9]+)*$/, 'must be lowercase letters and digits, joined by ".", "_" or "-"'),
  v.maxLength(100, 'must have at most 100 characters'),
)

const short = v.pipe(v.string(), v.minLength(1, 'must not be empty'), v.maxLength(16_384, 'is too long'))
const header = v.pipe(short, v.regex(/^[^\p{Cc}]*$/u, 'must not have control characters'))

/** A text that a parser takes. */
const parsed = <T>(parse: (text: string) => T | undefined, message: string) =>
  v.pipe(
    v.string(),
    v.check((text) => parse(text) !== undefined, message),
    v.transform((text) => parse(text) as T),
  )

export const credentialsSchema = v.union(
  [v.strictObject({ username: header, password: header }), v.strictObject({ token: header })],
  'must be { username, password } or { token }',
)

export const urlSchema = v.pipe(short, v.regex(/^https?:\/\//, 'must start with https:// or http://'))

export const hostsSchema = boundedList(
  v.pipe(v.string(), v.regex(/^[a-z0-9.-]+(?::\d+)?$|^\[[0-9a-f:]+\](?::\d+)?$/, 'must be a host, or host:port')),
  20,
)

const atLeastOne = <T extends v.GenericSchema>(schema: T) =>
  v.pipe(boundedList(schema, 10_000), v.minLength(1, 'must name at least one'))

const selectionSchema = v.strictObject({
  packs: v.optional(
    atLeastOne(v.pipe(v.string(), v.regex(patternGrammar, 'must be the id of a pack, with * for any characters'))),
    ['*'],
  ),
  versions: v.optional(parsed(parseRange, 'must be a range of versions, such as ^1.2.0')),
  channels: v.optional(atLeastOne(parsed(parseTag, 'must be the name of a channel'))),
  types: v.optional(atLeastOne(v.picklist(packTypes, `must be one of ${packTypes.join(', ')}`))),
  closure: v.optional(v.boolean(), false),
  referrers: v.optional(v.boolean(), true),
})

const whole = (least: number, most: number) =>
  v.pipe(
    v.number('must be a number'),
    v.integer('must be a whole number'),
    v.minValue(least, `must be at least ${least}`),
    v.maxValue(most, `must be at most ${most}`),
  )

const optionsSchema = v.strictObject({
  allowPrivate: v.optional(v.boolean()),
  hosts: v.optional(hostsSchema),
  concurrency: v.optional(whole(1, 32)),
  bytesPerSecond: v.optional(whole(1024, 1e12)),
})

const changeable = {
  url: urlSchema,
  prefix: v.optional(parsed(parseName, 'must be the first part of a repository name'), 'packs'),
  selection: v.optional(selectionSchema, {}),
  schedule: v.optional(
    v.nullable(
      v.pipe(
        v.string(),
        v.check(isCron, 'must be five fields of cron, such as "0 3 * * *", in UTC, of a time that comes'),
      ),
    ),
    null,
  ),
  credentials: v.optional(v.nullable(credentialsSchema)),
  options: v.optional(optionsSchema, {}),
}

/** The body of POST /mirrors. */
export const mirrorBody = v.strictObject({
  name: nameSchema,
  direction: v.picklist(['push', 'pull'], 'must be push or pull'),
  ...changeable,
})

/** The body of PATCH /mirrors/{name}: what is given replaces what was. */
export const mirrorChange = v.partial(
  v.strictObject({
    ...changeable,
    prefix: changeable.prefix.wrapped,
    selection: selectionSchema,
    schedule: changeable.schedule.wrapped,
    options: optionsSchema,
  }),
)

/** The query of POST /mirrors/{name}/run. */
export const runQuery = query({ dryRun: switchSchema })

const runsShown = 100

export function addMirrorRoutes(routes: Routes, deps: Deps): void {
  routes.get('/mirrors', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    return Response.json({ mirrors: (await askRead(deps.db, listMirrors)).map((row) => shown(row as Mirror)) })
  })

  routes.post('/mirrors', async (c) => {
    requireAccess(c, '*', 'push')
    queryOf(c, noQuery)
    const { name, direction, ...input } = await jsonBody(c, mirrorBody)
    const mirror = await createMirror(deps, name, direction, input)
    return Response.json({ mirror: shown(mirror) }, { status: 201, headers: { location: `/mirrors/${name}` } })
  })

  routes.get('/mirrors/:name', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    return Response.json({ mirror: shown(await mirrorOf(deps, nameParam(c, 'name'))) })
  })

  routes.patch('/mirrors/:name', async (c) => {
    requireAccess(c, '*', 'push')
    queryOf(c, noQuery)
    const before = await mirrorOf(deps, nameParam(c, 'name'))
    const change = await jsonBody(c, mirrorChange)
    await changeMirror(deps, before, changed(before, change))
    return Response.json({ mirror: shown(await mirrorOf(deps, before.name)) })
  })

  routes.delete('/mirrors/:name', async (c) => {
    requireAccess(c, '*', 'delete')
    queryOf(c, noQuery)
    return Response.json({ deleted: await removeMirror(deps, nameParam(c, 'name')) })
  })

  routes.post('/mirrors/:name/run', async (c) => {
    requireAccess(c, '*', 'push')
    const mirror = await mirrorOf(deps, nameParam(c, 'name'))
    const run = await requestRun(deps, mirror, queryOf(c, runQuery))
    return Response.json({ run: shownRun(run) }, { status: 202, headers: { location: `/mirrors/${mirror.name}/runs` } })
  })

  routes.get('/mirrors/:name/runs', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    const mirror = await mirrorOf(deps, nameParam(c, 'name'))
    const runs = await askRead(deps.db, (sql) => listRuns(sql, mirror.id, runsShown))
    return Response.json({ runs: runs.map(shownRun) })
  })

  // What the last run that came to its end found, a dry one too.
  routes.get('/mirrors/:name/parity', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    const mirror = await mirrorOf(deps, nameParam(c, 'name'))
    const run = await askRead(deps.db, (sql) => lastReport(sql, mirror.id))
    if (!run)
      throw new Failure('NOT_FOUND', {
        detail: `no run of ${mirror.name} has come to its end yet; run it, with dryRun=true to only look`,
      })
    return Response.json({ run: run.id, checkedAt: run.finishedAt, parity: run.report })
  })
}

function changed(before: Mirror, change: v.InferOutput<typeof mirrorChange>): MirrorInput {
  const { url, prefix, selection, schedule, options } = before
  return { url, prefix: prefix as RepositoryName, selection, schedule, options, ...defined(change) }
}

function defined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(value).filter(([, entry]) => entry !== undefined)
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> }
}

/** A mirror without its credentials; only whether it has some. */
function shown({ id, credentials, schedule, ...mirror }: Mirror): object {
  return { ...mirror, ...(schedule === null ? {} : { schedule }), credentials: credentials !== null }
}

/** A run without what does not apply to it, nor the addresses of uploads under way. */
function shownRun({ progress, ...run }: ListedRun | RunRow): object {
  const { sessions, ...told } = progress
  const facts = Object.entries(run).filter(([key, value]) => value !== null && key !== 'report')
  return { ...Object.fromEntries(facts), progress: told }
}
