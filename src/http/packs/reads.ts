import { mayAccess } from '../../auth/access.ts'
import { askRead } from '../../db/client.ts'
import { type ListedVersion, listVersions } from '../../db/pack-versions.ts'
import { dependentsOf } from '../../db/packs.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import { type PackId, repositoryOf } from '../../packs/pack.ts'
import { parseRange, satisfies } from '../../packs/version.ts'
import { principalOf, requireAccess } from '../access.ts'
import type { Routes } from '../routes.ts'
import type { Answer, dependentsAnswer, versionSummary, versionsAnswer } from './answers.ts'
import { jsonText, noQuery, packIdParam, queryOf, runnerQuery } from './request.ts'
import { runsOn, selectShown, selectVersion } from './select.ts'

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
    queryOf(c, noQuery)
    const { version } = await selectVersion(deps, packId, c.req.param('version') ?? '', undefined)
    const all = await askRead(deps.db, (sql) => dependentsOf(sql, packId))
    const principal = principalOf(c)
    const dependents = all.filter(({ packId: id, range }) => {
      if (!mayAccess(principal, repositoryOf(id as PackId), 'pull')) return false
      const parsed = parseRange(range)
      return parsed !== undefined && satisfies(version, parsed)
    })
    return Response.json({ dependents } satisfies Answer<typeof dependentsAnswer>)
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
