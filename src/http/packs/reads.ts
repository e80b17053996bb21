import * as v from 'valibot'
import { mayAccess } from '../../auth/access.ts'
import { askRead } from '../../db/client.ts'
import { type ListedVersion, listVersions } from '../../db/pack-versions.ts'
import type { DependentPlace } from '../../db/packs.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import { repositoryOf } from '../../packs/pack.ts'
import { type Accepting, dependentsOn } from '../../registry/dependents.ts'
import { principalOf, requireAccess } from '../access.ts'
import type { Routes } from '../routes.ts'
import type { Answer, dependentsAnswer, versionSummary, versionsAnswer } from './answers.ts'
import { readCursor, writeCursor } from './cursor.ts'
import { jsonText, limitSchema, packIdParam, query, queryOf, runnerQuery } from './request.ts'
import { runsOn, selectShown, selectVersion } from './select.ts'

/** The query of GET /packs/{id}/{version}/dependents. */
export const dependentsQuery = query({ limit: v.optional(limitSchema, '1000'), after: v.optional(v.string()) })

export function addPackReads(routes: Routes, deps: Deps): void {
  routes.get('/packs/:id', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const { runner } = queryOf(c, runnerQuery)
    const row = await selectShown(deps, packId, runner)
    return jsonText(`{"pack":${row.text}}`)
  })

  routes.get('/packs/:id/versions', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const { runner } = queryOf(c, runnerQuery)
    const all = await askRead(deps.db, (sql) => listVersions(sql, packId))
    if (!all) throw new Failure('PACK_UNKNOWN', { detail: `there is no pack ${packId}` })
    const fit = runner ? all.filter((row) => runsOn(row, runner)) : all
    return Response.json({ versions: fit.map(versionEntry) } satisfies Answer<typeof versionsAnswer>)
  })

  routes.get('/packs/:id/:version/manifest', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const { runner } = queryOf(c, runnerQuery)
    const row = await selectVersion(deps, packId, c.req.param('version') ?? '', runner)
    return jsonText(`{"pack":${row.text}}`)
  })

  routes.get('/packs/:id/:version/dependents', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const { limit, after } = queryOf(c, dependentsQuery)
    const { version } = await selectVersion(deps, packId, c.req.param('version') ?? '', undefined)
    const question = `dependents of ${packId} ${version}`
    const place = after === undefined ? undefined : readCursor<DependentPlace>(deps.uploadSecret, question, after)
    const principal = principalOf(c)
    const { page, last } = await askRead(deps.db, async (sql) => {
      const found: Accepting[] = []
      for await (const accepting of dependentsOn(sql, { packId, version }, place)) {
        if (!mayAccess(principal, repositoryOf(accepting.dependent.packId), 'pull')) continue
        if (found.length === limit) return { page: found, last: found.at(-1) }
        found.push(accepting)
      }
      return { page: found, last: undefined }
    })
    return Response.json({
      dependents: page.map(({ dependent }) => dependent),
      ...(last ? { next: writeCursor(deps.uploadSecret, question, last.place) } : {}),
    } satisfies Answer<typeof dependentsAnswer>)
  })
}

function versionEntry(row: ListedVersion): Answer<typeof versionSummary> {
  const { version, state, message, replacedBy, channels, digest, size, manifestDigest, publishedAt } = row
  return {
    ...{ version, state },
    ...(message === null ? {} : { message }),
    ...(replacedBy === null ? {} : { replacedBy }),
    channels,
    ...minRunnerOf(row),
    ...{ digest, size, manifestDigest, publishedAt },
  }
}

function minRunnerOf({ document }: ListedVersion): { minRunnerVersion?: string } {
  const { minRunnerVersion } = (JSON.parse(document) as { metadata: { minRunnerVersion?: string } }).metadata
  return minRunnerVersion === undefined ? {} : { minRunnerVersion }
}
