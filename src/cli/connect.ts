import { type Client, openClient } from '../client/client.ts'
import { addressOf, credentialsFor, registryOf } from './auth-file.ts'
