import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, test } from 'node:test'
import { parse, parseAllDocuments } from 'yaml'
import { locationOf } from '../../src/blobs/open.ts'
import { readConfig } from '../../src/config.ts'
import { assertSettings, imageEnv, only, read, root } from './image.ts'

const deploy = import.meta.dirname

/** How long the server may take to finish what is under way; see src/server.ts. */
const drainSeconds = 30

/** How long a worker may take to let its jobs end, and to tell them to; see src/worker/worker.ts. */
const workerSeconds = 20

type Service = {
  image?: string
  command?: string[]
  build?: { context: string; dockerfile: string }
  environment?: Record<string, string>
  depends_on?: Record<string, { condition: string }>
  volumes?: string[]
  healthcheck?: { test: string[] }
  ports?: string[]
  stop_grace_period?: string
  deploy?: { replicas: number }
}

describe('compose.yaml', () => {
  const text = read(deploy, 'compose.yaml')
  const { services, volumes } = parse(text, { strict: true, merge: true }) as {
    services: Record<string, Service>
    volumes: Record<string, unknown>
  }
  /** As compose would fill it in, with a word for every variable. */
  const filled = (value: string) => value.replace(/\$\{AUTH:[^}]*\}/, 'none').replace(/\$\{[^}]*\}/g, 'word')
  const { registry, worker } = services

  test('asks for every secret by name and has no default for any', () => {
    const code = text.replace(/^\s*#.*$/gm, '')
    for (const [variable] of code.matchAll(/\$\{[^}]*\}/g)) assert.match(variable, /^\$\{[A-Z0-9_]+:\?.+\}$/)
    for (const { environment = {} } of Object.values(services)) {
      for (const [name, value] of Object.entries(environment))
        if (/PASSWORD|SECRET|ACCESS_KEY/.test(name)) assert.match(value, /^\$\{[^}]*\}$/, name)
    }
    const example = read(deploy, 'compose.env.example')
    const named = new Set([...code.matchAll(/\$\{([A-Z0-9_]+)/g)].map(([, name]) => name))
    assert.deepEqual(new Set([...example.matchAll(/^([A-Z0-9_]+)=$/gm)].map(([, name]) => name)), named)
  })

  test('gives the registry only settings it knows, and values it takes', () => {
    const environment = registry?.environment ?? {}
    assertSettings(Object.keys(environment))
    const values = Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, filled(value)]))
    const config = readConfig({ ...imageEnv, ...values })
    assert.equal(config.databaseUrl, 'postgres://packs:word@postgres:5432/packs')
    const { bucket, endpoint, pathStyle } = locationOf(config.blobStore)
    assert.deepEqual({ bucket, endpoint, pathStyle }, { bucket: 'packs', endpoint: 'http://s3:9000', pathStyle: true })
    assert.ok(services.bucket && JSON.stringify(services.bucket).includes(`--bucket ${bucket}`))
  })

  test('runs jobs in workers and nowhere else, by the same settings, and asks them how they are', () => {
    const { WORKER, ...settings } = registry?.environment ?? {}
    const { WORKER: _, WORKER_PORT, ...theirs } = worker?.environment ?? {}
    assert.equal(WORKER, 'false')
    assert.deepEqual(theirs, settings)
    assert.deepEqual(worker?.command, ['worker'])
    assertSettings(['WORKER_PORT'])
    assert.match(worker?.healthcheck?.test.join(' ') ?? '', new RegExp(`:${WORKER_PORT}/readyz`))
    assert.ok(Number.parseInt(worker?.stop_grace_period ?? '', 10) > workerSeconds)
  })

  test('starts things in an order that exists', () => {
    for (const [name, { depends_on = {} }] of Object.entries(services)) {
      for (const [other, { condition }] of Object.entries(depends_on)) {
        assert.ok(services[other], `${name} waits for ${other}`)
        if (condition === 'service_healthy') assert.ok(services[other]?.healthcheck, `${other} says when it is healthy`)
      }
    }
  })

  test('mounts only what is declared or lies beside it', () => {
    for (const mount of Object.values(services).flatMap((service) => service.volumes ?? [])) {
      const [source = ''] = mount.split(':')
      assert.ok(source.startsWith('./') ? existsSync(join(deploy, source)) : source in volumes, mount)
    }
  })

  test('runs several registries from this checkout, and lets each finish what is under way', () => {
    assert.ok((registry?.deploy?.replicas ?? 1) > 1)
    const { context = '', dockerfile = '' } = registry?.build ?? {}
    assert.equal(resolve(deploy, context, dockerfile), join(root, 'Containerfile'))
    assert.ok(Number.parseInt(registry?.stop_grace_period ?? '', 10) > drainSeconds)
    assert.match(registry?.healthcheck?.test.join(' ') ?? '', /:5000\/readyz/)
  })

  test('publishes the balancer only, on this machine only, and it finds the registries', () => {
    for (const [name, { ports = [] }] of Object.entries(services))
      for (const port of ports) assert.deepEqual([name, port.split(':')[0]], ['balancer', '127.0.0.1'])
    assert.match(read(deploy, 'Caddyfile'), new RegExp(`dynamic a registry ${imageEnv.PORT}\\b`))
  })
})

// biome-ignore lint/suspicious/noExplicitAny: manifests of Kubernetes, looked at field by field.
type Manifest = any

describe('kubernetes', () => {
  const folder = join(deploy, 'kubernetes')
  const files = readdirSync(folder).filter((name) => name.endsWith('.yaml') && name !== 'secret.yaml')
  const manifests: Manifest[] = files.flatMap((file) =>
    parseAllDocuments(read(folder, file), { strict: true }).map((document) => {
      assert.deepEqual(document.errors, [], file)
      return document.toJS()
    }),
  )
  const one = (kind: string, name?: string): Manifest => {
    const found = manifests.filter(
      (manifest) => manifest.kind === kind && (name === undefined || manifest.metadata.name === name),
    )
    assert.equal(found.length, 1, `one ${kind}`)
    return found[0]
  }
  const registry = () => one('Deployment', 'packs-registry')
  const worker = () => one('Deployment', 'packs-registry-worker')
  const pod = () => registry().spec.template
  const container = () => pod().spec.containers[0]
  const workerPod = () => worker().spec.template
  const workerContainer = () => workerPod().spec.containers[0]

  test('every manifest is of a kind and version that Kubernetes 1.25 and newer has', () => {
    const versions: Record<string, string> = {
      Namespace: 'v1',
      Secret: 'v1',
      Service: 'v1',
      Deployment: 'apps/v1',
      PodDisruptionBudget: 'policy/v1',
      Ingress: 'networking.k8s.io/v1',
      Kustomization: 'kustomize.config.k8s.io/v1beta1',
    }
    for (const { kind, apiVersion } of manifests) assert.equal(apiVersion, versions[kind], kind)
  })

  test('the kustomization names every file but the example of the secret', () => {
    const expected = files.filter((file) => !['kustomization.yaml', 'secret.example.yaml'].includes(file))
    assert.deepEqual(one('Kustomization').resources.toSorted(), expected.toSorted())
    assert.equal(one('Kustomization').images[0].name, container().image)
    assert.equal(one('Kustomization').namespace, one('Namespace').metadata.name)
  })

  test('selectors, ports and names point at each other', () => {
    const labels = pod().metadata.labels
    for (const selector of [registry().spec.selector.matchLabels, one('Service').spec.selector])
      assert.deepEqual(selector, labels)
    assert.deepEqual(one('PodDisruptionBudget').spec.selector.matchLabels, labels)
    const [port] = container().ports
    assert.equal(String(port.containerPort), imageEnv.PORT)
    assert.equal(one('Service').spec.ports[0].targetPort, port.name)
    const { service } = one('Ingress').spec.rules[0].http.paths[0].backend
    assert.deepEqual(service, { name: one('Service').metadata.name, port: { name: one('Service').spec.ports[0].name } })
    assert.equal(container().envFrom[0].secretRef.name, one('Secret').metadata.name)
    const volumes = pod().spec.volumes.map((volume: Manifest) => volume.name)
    for (const { name } of container().volumeMounts) assert.ok(volumes.includes(name), name)
  })

  test('gives the registry only settings it knows, and refuses the example of the secret as it stands', () => {
    const plain = Object.fromEntries(container().env.map(({ name, value }: Manifest) => [name, value]))
    const secret = one('Secret').stringData
    assertSettings([...Object.keys(plain), ...Object.keys(secret)])
    const rest = { ...imageEnv, ...plain, AUTH: 'none' }
    assert.throws(() => readConfig({ ...rest, ...secret }), /DATABASE_URL[\s\S]*BLOB_STORE/)
    readConfig({ ...rest, DATABASE_URL: 'postgres://user:word@host/packs', BLOB_STORE: 's3://bucket?region=name' })
  })

  test('asks each question where it is answered', () => {
    for (const { startupProbe, readinessProbe, livenessProbe, ports } of [container(), workerContainer()]) {
      const probes = [startupProbe, readinessProbe, livenessProbe].map((probe) => probe.httpGet)
      assert.deepEqual(
        probes.map(({ path }) => path),
        ['/healthz', '/readyz', '/healthz'],
      )
      for (const { port } of probes) assert.equal(port, ports[0].name)
    }
    for (const { metadata, spec } of [pod(), workerPod()])
      assert.deepEqual(metadata.annotations, {
        'prometheus.io/scrape': 'true',
        'prometheus.io/port': String(spec.containers[0].ports[0].containerPort),
        'prometheus.io/path': '/metrics',
      })
  })

  test('runs jobs in workers and nowhere else, and lets no client reach them', () => {
    const env = ({ env }: Manifest) => Object.fromEntries(env.map(({ name, value }: Manifest) => [name, value]))
    assert.equal(env(container()).WORKER, 'false')
    assert.deepEqual(workerContainer().args, ['worker'])
    assert.equal(env(workerContainer()).WORKER_PORT, String(workerContainer().ports[0].containerPort))
    assertSettings(Object.keys(env(workerContainer())))
    assert.deepEqual(worker().spec.selector.matchLabels, workerPod().metadata.labels)
    const chosen = Object.entries(one('Service').spec.selector)
    assert.ok(!chosen.every(([name, value]) => workerPod().metadata.labels[name] === value))
    assert.deepEqual(workerContainer().envFrom, container().envFrom)
    assert.ok(workerPod().spec.terminationGracePeriodSeconds > workerSeconds)
  })

  test('leaves time to drain', () => {
    const [command, seconds] = container().lifecycle.preStop.exec.command
    assert.equal(command, 'sleep')
    assert.ok(pod().spec.terminationGracePeriodSeconds > Number(seconds) + drainSeconds)
  })

  test('meets the restricted pod security standard', () => {
    for (const { spec } of [pod(), workerPod()]) {
      const { runAsNonRoot, runAsUser, runAsGroup, seccompProfile } = spec.securityContext
      assert.ok(runAsNonRoot && seccompProfile.type === 'RuntimeDefault')
      assert.equal(`${runAsUser}:${runAsGroup}`, only('USER'))
      const [{ securityContext, resources }] = spec.containers
      const { allowPrivilegeEscalation, readOnlyRootFilesystem, capabilities } = securityContext
      assert.deepEqual([allowPrivilegeEscalation, readOnlyRootFilesystem, capabilities.drop], [false, true, ['ALL']])
      assert.equal(spec.automountServiceAccountToken, false)
      assert.ok(resources.requests.memory && resources.limits.memory)
    }
  })

  test('the ingress has no limit on bodies and collects none', () => {
    const { annotations } = one('Ingress').metadata
    const of = (name: string) => annotations[`nginx.ingress.kubernetes.io/${name}`]
    assert.deepEqual([of('proxy-body-size'), of('proxy-request-buffering'), of('proxy-buffering')], ['0', 'off', 'off'])
  })
})
