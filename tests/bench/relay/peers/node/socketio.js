// A relay on Socket.IO with its Redis adapter: node socketio.js PORT REDIS_PORT. A client joins the room of the query's `operation`; the publisher
// speaks the adapter's own protocol, as @socket.io/redis-emitter does.
import { createServer } from "node:http";
import { Server } from "socket.io";
import { createAdapter } from "@socket.io/redis-adapter";
import { Redis } from "ioredis";

const [port, redisPort] = process.argv.slice(2).map(Number);
const address = { host: "127.0.0.1", port: redisPort };
const http = createServer();
const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false, pingInterval: 30000, pingTimeout: 20000,
  adapter: createAdapter(new Redis(address), new Redis(address)) });
io.on("connection", (socket) => socket.join(socket.handshake.query.operation));
http.listen({ host: "127.0.0.1", port, backlog: 4096 });
