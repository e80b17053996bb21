import type { Deps } from './deps.ts'
import { Failure } from './errors.ts'
import { admit, challenged, openGate } from './http/access.ts'
import { addAuditRoutes, audit, mayBeAudited } from './http/audit.ts'
import { addBundleRoutes } from './http/bundles.ts'
import { addEventRoutes } from './http/events.ts'
import { addExportRoutes } from './http/exports.ts'
import { addImportRoutes } from './http/imports.ts'
import { addJobRoutes } from './http/jobs.ts'
import { addKeyRoutes } from './http/keys.ts'
import { addMirrorRoutes } from './http/mirrors.ts'
import { observe, requestId } from './http/observe.ts'
import { addDescription } from './http/openapi/route.ts'
import { addOpsRoutes, type ServerState } from './http/ops.ts'
import { addPackChanges } from './http/packs/changes.ts'
import { addPackContent } from './http/packs/content.ts'
import { addPackList } from './http/packs/list.ts'
import { addPackPublish } from './http/packs/publish.ts'
import { addPackReads } from './http/packs/reads.ts'
import { addPackResolve } from './http/packs/resolve.ts'
import { problem, problemInternalError } from './http/problem.ts'
import { addQuotaRoutes } from './http/quotas.ts'
import { addRetentionRoutes } from './http/retention.ts'
import { type App, type Env, methods, newApp, type Routes, routesOf } from './http/routes.ts'
import { setSafe } from './http/safety.ts'
import { addScrubRoutes } from './http/scrub.ts'
import { addTokenRoutes } from './http/token.ts'
import { addApiTokenRoutes } from './http/tokens.ts'
import { addUpstreamRoutes } from './http/upstreams.ts'
import { addBlobRoutes } from './http/v2/blobs.ts'
import { ociError, ociInternalError } from './http/v2/errors.ts'
import { addListingRoutes } from './http/v2/listings.ts'
import { addManifestRoutes } from './http/v2/manifests.ts'
import { addUploadRoutes } from './http/v2/uploads.ts'
import { addWebhookRoutes } from './http/webhooks.ts'

/** What answers a request that the server has not answered directly. */
export type Fetch = (request: Request, bindings: Env['Bindings']) => Response | Promise<Response>

/**
 * No path is longer: a name has 255 characters, which are three times as many when they are encoded, and there is a digest
 * or a range behind it. The router looks for where a name ends in every way that there is, and in a path of 14 KB that
 * keeps a process busy for ten seconds.
 */
const longestPath = 2048

/** Mounts what `add` adds behind the gate. Does not listen. `shared`: this is one of several processes of a server. */
export function buildApp(deps: Deps, add: (routes: Routes) => void, { shared = false } = {}): Fetch {
  const app = newApp()
  add(routesOf(app))
  app.notFound((c) => {
    const allowed = allowedMethods(app, c.req.path)
    const detail = { method: c.req.method, path: c.req.path }
    if (allowed.length === 0) return render(c.env, c.req.path, new Failure('NOT_FOUND', { detail }))
    return render(c.env, c.req.path, new Failure('UNSUPPORTED', { detail, headers: { allow: allowed.join(', ') } }))
  })
  app.onError((error, c) => render(c.env, c.req.path, error))
  const gate = openGate(deps, { shared })
  return (request, bindings) => {
    observe(deps, bindings)
    setSafe(bindings.outgoing, deps.config.tls !== undefined)
    const answer = answered(
      bindings,
      () => admit(gate, bindings),
      () => {
        if (hasFragment(bindings)) return withFragment(bindings)
        return isTooLong(bindings) ? tooLong(bindings) : app.fetch(request, bindings)
      },
    )
    return mayBeAudited(deps.auth, bindings) ? audited(deps, bindings, answer) : answer
  }
}

/** What comes of a request that is let in, or why it is not. Without a promise where nothing has to be waited for. */
function answered(
  bindings: Env['Bindings'],
  admission: () => Promise<void> | undefined,
  answer: () => Response | Promise<Response>,
): Response | Promise<Response> {
  const refused = (error: unknown) => render(bindings, pathOf(bindings), error)
  try {
    const admitted = admission()
    return admitted ? admitted.then(answer, refused) : answer()
  } catch (error) {
    return refused(error)
  }
}

/** What is behind a # is there for whoever reads `incoming.url`, and is not for the router and the query. */
function hasFragment({ incoming: { url = '' } }: Env['Bindings']): boolean {
  return url.indexOf('#') >= 0
}

/** Source: RFC 9112, section 3.2. */
function withFragment(bindings: Env['Bindings']): Response {
  const detail = 'the target of a request has no fragment: write # as %23'
  return render(bindings, pathOf(bindings), new Failure('REQUEST_INVALID', { detail }))
}

function isTooLong({ incoming: { url = '' } }: Env['Bindings']): boolean {
  return url.length > longestPath && pathOf({ incoming: { url } }).length > longestPath
}

function tooLong(bindings: Env['Bindings']): Response {
  const detail = `no path has more than ${longestPath} characters`
  return render(bindings, pathOf(bindings), new Failure('NOT_FOUND', { detail }))
}

async function audited(
  deps: Deps,
  bindings: Env['Bindings'],
  answering: Response | Promise<Response>,
): Promise<Response> {
  const answer = await answering
  await audit(deps, bindings, answer.status)
  return answer
}

function pathOf({ incoming }: { incoming: { url?: string | undefined } }): string {
  return (incoming.url ?? '').split('?', 1)[0] ?? ''
}

/** Every route there is, but for the few that the server answers directly too. */
export function addRoutes(routes: Routes, deps: Deps, state: ServerState): void {
  addListingRoutes(routes, deps)
  addManifestRoutes(routes, deps)
  addUploadRoutes(routes, deps)
  addBlobRoutes(routes, deps)
  addPackList(routes, deps)
  addPackReads(routes, deps)
  addPackContent(routes, deps)
  addPackPublish(routes, deps)
  addPackChanges(routes, deps)
  addPackResolve(routes, deps)
  addKeyRoutes(routes, deps)
  addBundleRoutes(routes, deps)
  addExportRoutes(routes, deps)
  addImportRoutes(routes, deps)
  addJobRoutes(routes, deps)
  addTokenRoutes(routes, deps)
  addApiTokenRoutes(routes, deps)
  addQuotaRoutes(routes, deps)
  addAuditRoutes(routes, deps)
  addScrubRoutes(routes, deps)
  addMirrorRoutes(routes, deps)
  addUpstreamRoutes(routes, deps)
  addEventRoutes(routes, deps, state)
  addWebhookRoutes(routes, deps)
  addRetentionRoutes(routes, deps)
  addOpsRoutes(routes, deps, state)
  addDescription(routes)
}

/** The methods that this path has a route for. */
function allowedMethods(app: App, path: string): string[] {
  const allowed = methods.map((method) => method.toUpperCase())
  const known = allowed.filter((method) => app.router.match(method, path)[0].length > 0)
  return known.includes('GET') ? ['HEAD', ...known] : known
}

/** The one place where a failure becomes an answer, in the dialect of the surface that was asked. */
function render(bindings: Env['Bindings'], path: string, error: unknown): Response {
  bindings.error = error
  const isRegistry = path === '/v2' || path.startsWith('/v2/')
  if (error instanceof Failure) {
    const failure = challenged(bindings, error)
    return isRegistry ? ociError(failure) : problem(failure)
  }
  // The client has left: nobody reads this, and it is no fault of ours.
  if (bindings.incoming.destroyed && !bindings.incoming.complete) return new Response(null, { status: 499 })
  return isRegistry ? ociInternalError(requestId(bindings)) : problemInternalError(requestId(bindings))
}
