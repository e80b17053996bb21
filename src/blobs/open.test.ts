import assert from 'node:assert/strict'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { locationOf, openBlobStore } from './open.ts'

test('a folder is opened without loading the AWS SDK', async (t) => {
  const folder = fs.mkdtempSync(join(tmpdir(), 'blobs-'))
  t.after(() => fs.rmSync(folder, { recursive: true }))
  for (const setting of [`file:${folder}`, `file://${folder}/`]) {
    const store = await openBlobStore(setting)
    assert.match(store.description, new RegExp(folder))
    await store.close()
  }
  const loaded = Object.keys(createRequire(import.meta.url).cache)
  assert.deepEqual(
    loaded.filter((path) => path.includes('@aws-sdk')),
    [],
  )
})

for (const { setting, location } of [
  { setting: 's3://packs', location: { prefix: '', pathStyle: false } },
  { setting: 's3://packs/', location: { prefix: '', pathStyle: false } },
  { setting: 's3://packs/a/b/', location: { prefix: 'a/b/', pathStyle: false } },
  {
    setting: 's3://packs/a?endpoint=http://127.0.0.1:9000&region=eu-1&pathStyle=true',
    location: { prefix: 'a/', endpoint: 'http://127.0.0.1:9000', region: 'eu-1', pathStyle: true },
  },
  {
    setting: 's3://packs?endpoint=https%3A%2F%2Fs3.example',
    location: { prefix: '', endpoint: 'https://s3.example', pathStyle: false },
  },
]) {
  test(`reads ${setting}`, () => {
    const expected = { bucket: 'packs', endpoint: undefined, region: undefined, ...location }
    assert.deepEqual(locationOf(setting), expected)
  })
}

for (const { setting, says } of [
  { setting: '', says: /Write file:\/absolute\/path, or s3:/ },
  { setting: '/srv/blobs', says: /Write file:\/absolute\/path/ },
  { setting: 'file:', says: /absolute path\. Write file:/ },
  { setting: 'file:blobs', says: /file:blobs does not name .* Write file:\/absolute/ },
  { setting: 'file://host/blobs', says: /Write file:\/absolute/ },
  { setting: 's3:packs', says: /names no bucket\. Write/ },
  { setting: 's3://', says: /names no bucket\. Write/ },
  { setting: 's3://packs?pathstyle=true', says: /"pathstyle".*endpoint, region, pathStyle/ },
  { setting: 's3://packs?pathStyle=yes', says: /pathStyle=true or pathStyle=false/ },
  { setting: 's3://packs?endpoint=localhost:9000', says: /endpoint=https:\/\/host/ },
]) {
  test(`refuses "${setting}" and says what to write`, async () => {
    await assert.rejects(openBlobStore(setting), says)
  })
}

test('no message repeats a secret from the setting', async () => {
  for (const setting of ['s3://key:hush@packs/x', 's3://packs?endpoint=https://key:hush@host']) {
    await assert.rejects(openBlobStore(setting), (error: Error) => !error.message.includes('hush'))
  }
})
