-- A dissector of Stubborn's packets for Wireshark and tshark, 4.0 and later (Lua 5.2 to 5.4).
-- docs/protocol.md is what it follows; docs/observability.md says how it is used.
--
-- Captures show headers only, since everything else is encrypted. `stubborn pcap` opens the packets of
-- a capture with the keys that SSLKEYLOGFILE has; what it writes is dissected here to the end.

local stubborn = Proto("stubborn", "Stubborn RPC")
local opened = Proto("stubborn_opened", "Stubborn RPC, packets opened by `stubborn pcap`")

local VERSION = 0x53545201
local ID_LENGTH = 8

local FRAMES = {
  [0x00] = "PADDING", [0x01] = "PING", [0x02] = "ACK", [0x03] = "ACK", [0x04] = "RESET_MESSAGE",
  [0x05] = "STOP_MESSAGE", [0x06] = "CRYPTO", [0x10] = "MAX_DATA", [0x11] = "MAX_MESSAGE_DATA",
  [0x12] = "MAX_MESSAGES", [0x14] = "DATA_BLOCKED", [0x16] = "MESSAGES_BLOCKED",
  [0x18] = "NEW_CONNECTION_ID", [0x19] = "RETIRE_CONNECTION_ID", [0x1a] = "PATH_CHALLENGE",
  [0x1b] = "PATH_RESPONSE", [0x1c] = "CONNECTION_CLOSE", [0x1d] = "CONNECTION_CLOSE",
  [0x1e] = "HANDSHAKE_DONE", [0x30] = "DATAGRAM", [0x31] = "DATAGRAM",
}
for ty = 0x08, 0x0f do FRAMES[ty] = "MESSAGE" end

local KINDS = {
  [0x01] = "OPEN", [0x02] = "ATTACH", [0x03] = "REQUEST", [0x04] = "FENCE", [0x05] = "RELEASE",
  [0x06] = "RETURN_SLOTS", [0x07] = "QUERY", [0x08] = "READ", [0x09] = "CANCEL_READ",
  [0x0a] = "MAYBE", [0x0b] = "CLOSE_SESSION", [0x0c] = "STALE_READ", [0x0d] = "STREAM",
  [0x0e] = "CANCEL_STREAM", [0x0f] = "WATCH", [0x10] = "LEFT", [0x20] = "STREAM_MESSAGE", [0x21] = "STREAM_END",
  [0x22] = "STREAM_CREDIT", [0x41] = "OPENED", [0x42] = "ATTACHED", [0x43] = "REFUSED",
  [0x44] = "REPLY", [0x45] = "WORKING", [0x46] = "NOT_EXECUTED", [0x47] = "NOT_KEPT",
  [0x48] = "FALSE_RETRY", [0x49] = "STALE", [0x4a] = "SLOTS", [0x4b] = "OUTCOME",
  [0x4c] = "READ_REPLY", [0x4d] = "DRAINING", [0x4e] = "READ_NOT_EXECUTED", [0x4f] = "BUSY",
  [0x50] = "SESSION_BUSY", [0x51] = "READ_TOO_STALE", [0x52] = "AS_OF", [0x53] = "MEMBERS",
  [0x54] = "WATCHED", [0x60] = "NO_STREAM",
}

local PACKETS = { [0] = "Initial", [1] = "0-RTT", [2] = "Handshake", [3] = "Retry",
  [4] = "1-RTT", [5] = "Version Negotiation", [6] = "other version" }
local ONE_RTT, RETRY, NEGOTIATION, OTHER = 4, 3, 5, 6
local REFUSALS = { [0] = "unknown", [1] = "expired", [2] = "denied", [3] = "full",
  [4] = "draining", [5] = "superseded", [6] = "taken over" }
local REASONS = { [0] = "fenced", [1] = "deadline", [2] = "cancelled", [3] = "overloaded",
  [4] = "draining", [5] = "unknown method", [6] = "malformed", [7] = "corrupted",
  [8] = "never sent", [9] = "false retry", [10] = "too large" }
local SLOT_STATES = { [0] = "idle", [1] = "executing", [2] = "done, reply kept",
  [3] = "done, reply not kept", [4] = "released", [5] = "fenced", [6] = "not granted" }
local OUTCOMES = { [0] = "not arrived", [1] = "executing", [2] = "done, the reply follows",
  [3] = "done, reply not kept", [4] = "already settled", [5] = "not executed",
  [6] = "unknown session" }
local SENDERS = { [0] = "unknown", [1] = "client", [2] = "server" }

-- Fields: one for each name of docs/protocol.md.
local f = {}
local function number(name, text, names)
  f[name] = ProtoField.uint64("stubborn." .. name, text, base.DEC, names)
end
local function code(name, text, names)
  f[name] = ProtoField.uint8("stubborn." .. name, text, base.HEX, names)
end
local function bytes(name, text) f[name] = ProtoField.bytes("stubborn." .. name, text) end
local function text(name, title) f[name] = ProtoField.string("stubborn." .. name, title) end

f.packet_type = ProtoField.uint8("stubborn.packet_type", "Packet type", base.DEC, PACKETS)
f.version = ProtoField.uint32("stubborn.version", "Version", base.HEX)
bytes("destination", "Destination connection id")
bytes("source", "Source connection id")
bytes("token", "Token")
number("length", "Length")
bytes("tag", "Integrity tag")
bytes("protected", "Encrypted")
f.sender = ProtoField.uint8("stubborn.sender", "Sent by", base.DEC, SENDERS)
f.key_phase = ProtoField.uint8("stubborn.key_phase", "Key phase", base.DEC)
f.packet_number = ProtoField.uint64("stubborn.packet_number", "Packet number", base.DEC)

code("frame", "Frame", FRAMES)
number("padding", "Bytes of padding")
number("message", "Message id")
number("offset", "Offset")
number("data_length", "Length of data")
bytes("data", "Data")
f["end"] = ProtoField.bool("stubborn.end", "The message ends here")
number("error_code", "Error code")
number("final_size", "Final size")
number("limit", "Limit")
number("ack_largest", "Largest acknowledged")
number("ack_delay", "Delay, microseconds")
number("ack_ranges", "Ranges")
number("ack_first", "First range")
number("ack_gap", "Gap")
number("ack_range", "Range")
number("ect0", "ECT(0)")
number("ect1", "ECT(1)")
number("ce", "CE")
number("id_sequence", "Sequence of connection id")
number("retire_prior_to", "Retire prior to")
bytes("connection_id", "Connection id")
bytes("reset_token", "Stateless reset token")
bytes("challenge", "Challenge")
f.frame_type = ProtoField.uint64("stubborn.frame_type", "Frame that caused it", base.HEX, FRAMES)
text("reason_text", "Reason")

code("kind", "Kind", KINDS)
code("begins", "Kind of the message that begins here", KINDS)
number("parts", "Frames that it came in")
number("message_length", "Length of the message")
f.whole_in = ProtoField.framenum("stubborn.whole_in", "Whole in", base.NONE)
bytes("nonce", "Nonce")
number("slots_wanted", "Slots wanted")
number("slots_granted", "Slots granted")
bytes("session", "Session")
bytes("incarnation", "Incarnation")
f.session_number = ProtoField.uint64("stubborn.session_number", "Number of session", base.DEC)
bytes("secret", "Secret")
number("slot", "Slot")
number("sequence", "Sequence")
f.method = ProtoField.bytes("stubborn.method", "Method")
number("deadline", "Deadline, microseconds left plus 1; 0: none")
number("pause", "Pause, microseconds plus 1")
number("age", "Age, microseconds plus 1; 0: of now")
number("hold", "Hold, microseconds plus 1")
f.digest = ProtoField.bytes("stubborn.digest", "Digest")
number("metadata", "Entries of metadata")
text("metadata_key", "Key")
bytes("metadata_value", "Value")
bytes("body", "Body")
number("count", "Count")
number("query", "Query id")
number("read", "Read id")
number("entry", "Entry of the log")
number("position", "Position")
number("room", "Room")
f.sides = ProtoField.uint8("stubborn.sides", "Sides that stream", base.DEC,
  { [1] = "the client", [2] = "the server", [3] = "both" })
number("window", "Window")
f.why = ProtoField.uint8("stubborn.why", "Why", base.DEC, { [0] = "dropped", [1] = "deadline" })
number("index", "Index")
number("received", "Received")
number("taken", "Taken")
number("sent", "Sent")
number("epoch", "Epoch")
number("span", "Span")
number("slots_version", "Version of the wanted number")
number("retention", "Retention, seconds")
f.refusal = ProtoField.uint64("stubborn.refusal", "Reason", base.DEC, REFUSALS)
f.reason = ProtoField.uint64("stubborn.reason", "Reason", base.DEC, REASONS)
f.slot_state = ProtoField.uint64("stubborn.slot_state", "State", base.DEC, SLOT_STATES)
f.outcome = ProtoField.uint64("stubborn.outcome", "State", base.DEC, OUTCOMES)
number("status", "Status")
text("status_message", "Message of the status")
bytes("status_details", "Details of the status")
text("member", "Member")
bytes("holder", "Holder")
f.reply_in = ProtoField.framenum("stubborn.reply_in", "Answered in", base.NONE, frametype.RESPONSE)
f.reply_to = ProtoField.framenum("stubborn.reply_to", "Answer to", base.NONE, frametype.REQUEST)
f.reply_time = ProtoField.relative_time("stubborn.reply_time", "Time since the request")

local e_short = ProtoExpert.new("stubborn.cut_short", "Cut short, or not of this protocol",
  expert.group.MALFORMED, expert.severity.WARN)
local e_unknown = ProtoExpert.new("stubborn.unknown", "Unknown type",
  expert.group.UNDECODED, expert.severity.WARN)
local e_more = ProtoExpert.new("stubborn.not_shown", "What follows is not shown: the message is too long",
  expert.group.UNDECODED, expert.severity.NOTE)
local e_again = ProtoExpert.new("stubborn.request_again", "The request was sent before",
  expert.group.SEQUENCE, expert.severity.NOTE)

local fields = {}
for _, field in pairs(f) do fields[#fields + 1] = field end
stubborn.fields = fields
stubborn.experts = { e_short, e_unknown, e_again, e_more }

-- Reads fields from bytes that anybody may have sent. What is not there ends the dissection of the part
-- (`part` below); nothing else may be raised.
local CUT_SHORT = {}
local Reader = {}
Reader.__index = Reader

local function reader(tvb, from, to)
  return setmetatable({ tvb = tvb, at = from, to = to }, Reader)
end

function Reader:left() return self.to - self.at end

function Reader:range(length)
  if length > self:left() then error(CUT_SHORT, 0) end
  local at = self.at
  self.at = at + length
  return self.tvb(at, length)
end

-- A number of one to eight bytes: its value as far as Lua can tell it, its bytes, its exact value.
function Reader:varint()
  if self:left() < 1 then error(CUT_SHORT, 0) end
  local first = self.tvb(self.at, 1):uint()
  local size = 2 ^ math.floor(first / 64)
  local range = self:range(size)
  if size == 8 then
    local exact = range:uint64():band(UInt64.new(0xffffffff, 0x3fffffff))
    return exact:tonumber(), range, exact
  end
  local prefix = math.floor(first / 64) * 64 * 256 ^ (size - 1)
  local value = range:uint() - prefix
  return value, range, UInt64.new(value, 0)
end

-- A part that follows its length, as long as there are so many bytes.
function Reader:sized(length)
  if length > self:left() then error(CUT_SHORT, 0) end
  return length
end

-- These add what they read to the tree.
function Reader:number(tree, field)
  local value, range, exact = self:varint()
  tree:add(field, range, exact)
  return value
end

function Reader:byte(tree, field)
  local range = self:range(1)
  tree:add(field, range)
  return range:uint()
end

function Reader:bytes(tree, field, length)
  if length == 0 then return "" end
  local range = self:range(length)
  tree:add(field, range)
  return range:bytes():tohex()
end

function Reader:text(tree, field)
  local length = self:varint()
  if length == 0 then return "" end
  local range = self:range(self:sized(length))
  tree:add(field, range)
  return range:string()
end

-- Runs a part; what is cut short is told in the tree.
local function part(tree, read)
  local fine, problem = pcall(read)
  if fine then return true end
  if problem ~= CUT_SHORT then error(problem, 0) end
  tree:add_proto_expert_info(e_short)
  return false
end

local function shown(value)
  if value < 2 ^ 53 then return string.format("%d", value) end
  return string.format("%.0f", value)
end

-- Requests by connection, slot and number, to find what answers them; and by sender and message id where
-- a message is whole that came in several frames.
local asked, answered, completed

function stubborn.init() asked, answered, completed = {}, {}, {} end

local function tie(tree, pinfo, key, answers)
  if not asked then stubborn.init() end
  local own, other = asked, answered
  if answers then own, other = answered, asked end
  if not pinfo.visited and not own[key] then
    own[key] = { frame = pinfo.number, time = pinfo.abs_ts }
  end
  if not answers and own[key] and own[key].frame < pinfo.number then
    tree:add_proto_expert_info(e_again)
  end
  local found = other[key]
  if not found then return end
  if not answers then
    tree:add(f.reply_in, found.frame):set_generated()
  elseif found.frame <= pinfo.number then
    tree:add(f.reply_to, found.frame):set_generated()
    local seconds = pinfo.abs_ts - found.time
    local whole = math.floor(seconds)
    local time = NSTime.new(whole, math.floor((seconds - whole) * 1e9))
    tree:add(f.reply_time, time):set_generated()
  end
end

local function pair(pinfo, client_sends)
  local from = tostring(pinfo.src) .. " " .. pinfo.src_port
  local to = tostring(pinfo.dst) .. " " .. pinfo.dst_port
  if client_sends then return from .. " " .. to end
  return to .. " " .. from
end

local function message_key(pinfo, id)
  return pair(pinfo, true) .. " message " .. shown(id)
end

-- Messages: docs/protocol.md section 4.
local function session(r, tree)
  local range = r:range(16)
  local item = tree:add(f.session, range)
  item:add(f.incarnation, range(0, 8))
  item:add(f.session_number, range(8, 8))
end

local function metadata(r, tree)
  local count = r:number(tree, f.metadata)
  while count > 0 do
    r:text(tree, f.metadata_key)
    r:bytes(tree, f.metadata_value, r:sized((r:varint())))
    count = count - 1
  end
end

local function rest(r, tree)
  if r:left() > 0 then tree:add(f.body, r:range(r:left())) end
end

local function request(r, tree)
  r:bytes(tree, f.method, 8)
  r:number(tree, f.deadline)
  r:bytes(tree, f.digest, 8)
  metadata(r, tree)
  rest(r, tree)
end

local function call(r, tree)
  local slot = r:number(tree, f.slot)
  local sequence = r:number(tree, f.sequence)
  return " " .. shown(slot) .. "-" .. shown(sequence), slot, sequence
end

local function calls(r, tree)
  local count = r:number(tree, f.count)
  while count > 0 do
    call(r, tree)
    count = count - 1
  end
end

local function reply(r, tree)
  r:bytes(tree, f.digest, 8)
  local status = r:number(tree, f.status)
  local told = ""
  if status ~= 0 and status ~= 32 then
    r:text(tree, f.status_message)
    r:bytes(tree, f.status_details, r:sized((r:varint())))
    told = " status " .. shown(status % 32)
  end
  if status >= 32 and status < 64 then
    r:number(tree, f.taken)
    r:number(tree, f.sent)
  end
  metadata(r, tree)
  rest(r, tree)
  return told
end

local function not_executed(r, tree)
  local reason = r:number(tree, f.reason)
  r:text(tree, f.reason_text)
  return " (" .. (REASONS[reason] or "fenced") .. ")"
end

local function read_id(r, tree) return " " .. shown(r:number(tree, f.read)) end

-- What begins with the id of a call or of a read, and has numbers, and mostly something behind them.
local function made_of(id, numbers, last)
  return function(r, tree)
    local told = id(r, tree)
    for _, field in ipairs(numbers) do r:number(tree, field) end
    if last then last(r, tree) end
    return told
  end
end

local message

local READERS = {
  OPEN = function(r, tree)
    r:bytes(tree, f.nonce, 16)
    r:number(tree, f.slots_wanted)
  end,
  ATTACH = function(r, tree)
    session(r, tree)
    r:bytes(tree, f.secret, 32)
    if r:left() == 0 then return end
    r:bytes(tree, f.holder, 8)
    local count = r:number(tree, f.count)
    while count > 0 do
      r:bytes(tree, f.holder, 8)
      count = count - 1
    end
    if r:left() > 0 then calls(r, tree) end
  end,
  REQUEST = function(r, tree, pinfo)
    local told, slot, sequence = call(r, tree)
    tie(tree, pinfo, pair(pinfo, true) .. told, false)
    request(r, tree)
    return told
  end,
  FENCE = call, WORKING = call, NOT_KEPT = call, FALSE_RETRY = call, STALE = call,
  NO_STREAM = call,
  RELEASE = calls, RETURN_SLOTS = calls,
  QUERY = function(r, tree)
    r:number(tree, f.query)
    session(r, tree)
    local told = call(r, tree)
    r:bytes(tree, f.secret, 32)
    return told
  end,
  READ = function(r, tree, pinfo)
    local told = read_id(r, tree)
    tie(tree, pinfo, pair(pinfo, true) .. " read" .. told, false)
    request(r, tree)
    return told
  end,
  CANCEL_READ = read_id, READ_TOO_STALE = read_id,
  MAYBE = request,
  STALE_READ = made_of(read_id, { f.entry, f.age }, request),
  STREAM = function(r, tree)
    local told = call(r, tree)
    r:byte(tree, f.sides)
    r:number(tree, f.window)
    request(r, tree)
    return told
  end,
  CANCEL_STREAM = function(r, tree)
    local told = call(r, tree)
    r:byte(tree, f.why)
    return told
  end,
  WATCH = made_of(read_id, { f.entry, f.age, f.position, f.room, f.hold }, request),
  STREAM_MESSAGE = function(r, tree)
    local told = call(r, tree)
    r:number(tree, f.index)
    r:bytes(tree, f.digest, 8)
    rest(r, tree)
    return told
  end,
  STREAM_END = made_of(call, { f.count }),
  STREAM_CREDIT = made_of(call, { f.received, f.taken, f.limit }),
  OPENED = function(r, tree)
    r:bytes(tree, f.nonce, 16)
    session(r, tree)
    r:bytes(tree, f.secret, 32)
    r:number(tree, f.epoch)
    r:number(tree, f.slots_granted)
    r:number(tree, f.retention)
  end,
  ATTACHED = function(r, tree)
    session(r, tree)
    r:number(tree, f.epoch)
    r:number(tree, f.span)
    r:number(tree, f.slots_version)
    r:number(tree, f.slots_wanted)
    local count = r:number(tree, f.count)
    while count > 0 do
      call(r, tree)
      r:number(tree, f.slot_state)
      count = count - 1
    end
  end,
  REFUSED = function(r, tree)
    r:bytes(tree, f.session, 16)
    return " (" .. (REFUSALS[r:number(tree, f.refusal)] or "?") .. ")"
  end,
  REPLY = function(r, tree, pinfo)
    local told = call(r, tree)
    tie(tree, pinfo, pair(pinfo, false) .. told, true)
    return told .. reply(r, tree)
  end,
  NOT_EXECUTED = function(r, tree, pinfo)
    local told = call(r, tree)
    tie(tree, pinfo, pair(pinfo, false) .. told, true)
    return told .. not_executed(r, tree)
  end,
  SLOTS = function(r, tree)
    r:number(tree, f.slots_version)
    r:number(tree, f.slots_wanted)
    calls(r, tree)
  end,
  OUTCOME = function(r, tree)
    r:number(tree, f.query)
    local state = r:number(tree, f.outcome)
    if state == 2 then reply(r, tree) elseif state == 5 then not_executed(r, tree) end
    return " (" .. (OUTCOMES[state] or "?") .. ")"
  end,
  READ_REPLY = function(r, tree, pinfo)
    local told = read_id(r, tree)
    tie(tree, pinfo, pair(pinfo, false) .. " read" .. told, true)
    return told .. reply(r, tree)
  end,
  READ_NOT_EXECUTED = function(r, tree)
    local told = read_id(r, tree)
    return told .. not_executed(r, tree)
  end,
  BUSY = made_of(call, { f.pause }),
  SESSION_BUSY = function(r, tree)
    r:bytes(tree, f.session, 16)
    r:number(tree, f.pause)
  end,
  AS_OF = function(r, tree, pinfo, depth)
    r:number(tree, f.entry)
    if depth > 0 then error(CUT_SHORT, 0) end
    return message(r, tree, pinfo, depth + 1)
  end,
  MEMBERS = function(r, tree)
    r:number(tree, f.entry)
    local count = r:number(tree, f.count)
    while count > 0 do
      r:text(tree, f.member)
      count = count - 1
    end
  end,
  WATCHED = function(r, tree)
    local told = read_id(r, tree)
    r:number(tree, f.position)
    while r:left() > 0 do
      r:bytes(tree, f.digest, 8)
      r:bytes(tree, f.body, r:sized((r:varint())))
    end
    return told
  end,
}

-- One message from its first byte on; says in a few words what it is.
message = function(r, tree, pinfo, depth)
  local kind = r:byte(tree, f.kind)
  local name = KINDS[kind]
  if not name then
    tree:add_proto_expert_info(e_unknown)
    return string.format("message of kind 0x%02x", kind)
  end
  tree:append_text(", " .. name)
  local told = name
  local read = READERS[name]
  if read then
    part(tree, function()
      local more = read(r, tree, pinfo, depth)
      if name == "AS_OF" then told = more elseif more then told = name .. more end
    end)
  end
  return told
end

-- Frames: docs/protocol.md section 2. Each returns what the list of packets is to say of it.
local function data_of(r, tree, field, length)
  if length > 0 then tree:add(field, r:range(length)) end
end

local function message_frame(ty)
  return function(r, tree, pinfo)
    local id = r:number(tree, f.message)
    local offset = 0
    if ty % 8 >= 4 then offset = r:number(tree, f.offset) end
    local length = r:left()
    if ty % 4 >= 2 then length = r:sized(r:number(tree, f.data_length)) end
    local whole = tree:add(f["end"], ty % 2 == 1)
    whole:set_generated()
    local from = r.at
    r.at = from + length
    -- Of several frames: shown where it is whole.
    if offset > 0 or ty % 2 == 0 then
      local found = completed and completed[message_key(pinfo, id)]
      if found then tree:add(f.whole_in, found):set_generated() end
      if length > 0 then tree:add(f.data, r.tvb(from, length)) end
      if offset > 0 or length == 0 then
        return "message " .. shown(id) .. " from " .. shown(offset)
      end
      local kind = r.tvb(from, 1)
      tree:add(f.begins, kind)
      return (KINDS[kind:uint()] or "message") .. " begins in message " .. shown(id)
    end
    if length == 0 then return "message " .. shown(id) .. " from 0" end
    return message(reader(r.tvb, from, from + length), tree, pinfo, 0)
  end
end

local function close(transport)
  return function(r, tree)
    local why = r:number(tree, f.error_code)
    if transport then r:number(tree, f.frame_type) end
    r:text(tree, f.reason_text)
    return "CONNECTION_CLOSE " .. shown(why)
  end
end

local FRAME_READERS = {
  [0x00] = function(r, tree)
    local from = r.at
    while r:left() > 0 and r.tvb(r.at, 1):uint() == 0 do r.at = r.at + 1 end
    tree:add(f.padding, r.tvb(from - 1, r.at - from + 1), UInt64.new(r.at - from + 1, 0))
  end,
  [0x04] = function(r, tree)
    r:number(tree, f.message)
    r:number(tree, f.error_code)
    r:number(tree, f.final_size)
  end,
  [0x05] = function(r, tree)
    r:number(tree, f.message)
    r:number(tree, f.error_code)
  end,
  [0x06] = function(r, tree)
    r:number(tree, f.offset)
    data_of(r, tree, f.data, r:sized(r:number(tree, f.data_length)))
    return "CRYPTO"
  end,
  [0x10] = function(r, tree) r:number(tree, f.limit) end,
  [0x11] = function(r, tree)
    r:number(tree, f.message)
    r:number(tree, f.limit)
  end,
  [0x12] = function(r, tree) r:number(tree, f.limit) end,
  [0x14] = function(r, tree) r:number(tree, f.limit) end,
  [0x16] = function(r, tree) r:number(tree, f.limit) end,
  [0x18] = function(r, tree)
    r:number(tree, f.id_sequence)
    r:number(tree, f.retire_prior_to)
    r:bytes(tree, f.connection_id, r:sized(r:range(1):uint()))
    r:bytes(tree, f.reset_token, 16)
  end,
  [0x19] = function(r, tree) r:number(tree, f.id_sequence) end,
  [0x1a] = function(r, tree) r:bytes(tree, f.challenge, 8) end,
  [0x1b] = function(r, tree) r:bytes(tree, f.challenge, 8) end,
  [0x1c] = close(true),
  [0x1d] = close(false),
}
for ty = 0x08, 0x0f do FRAME_READERS[ty] = message_frame(ty) end
for ty = 0x02, 0x03 do
  FRAME_READERS[ty] = function(r, tree)
    local largest = r:number(tree, f.ack_largest)
    r:number(tree, f.ack_delay)
    local count = r:number(tree, f.ack_ranges)
    r:number(tree, f.ack_first)
    while count > 0 do
      r:number(tree, f.ack_gap)
      r:number(tree, f.ack_range)
      count = count - 1
    end
    if ty == 0x03 then
      r:number(tree, f.ect0)
      r:number(tree, f.ect1)
      r:number(tree, f.ce)
    end
    return "ACK " .. shown(largest)
  end
end
for ty = 0x30, 0x31 do
  FRAME_READERS[ty] = function(r, tree, pinfo)
    local length = r:left()
    if ty == 0x31 then length = r:sized(r:number(tree, f.data_length)) end
    local from = r.at
    r.at = from + length
    return message(reader(r.tvb, from, from + length), tree, pinfo, 0)
  end
end

local function frames(r, tree, pinfo, said)
  while r:left() > 0 do
    local from = r.at
    local ty = r:range(1):uint()
    local name = FRAMES[ty]
    local item = tree:add(stubborn, r.tvb(from), name or string.format("Frame 0x%02x", ty))
    item:add(f.frame, r.tvb(from, 1))
    if not name then
      item:add_proto_expert_info(e_unknown)
      return
    end
    local read = FRAME_READERS[ty]
    local told
    local whole = not read or part(item, function() told = read(r, item, pinfo) end)
    item:set_len(math.max(r.at - from, 1))
    if told == nil and ty ~= 0x00 then told = name end
    if told then said[#said + 1] = told end
    if not whole then return end
  end
end

-- Headers: docs/protocol.md section 1. Reads one up to the packet number, and returns the type of the
-- packet and, of one that tells its length, that.
local function header(r, tree)
  local first = r:range(1)
  local bits = first:uint()
  if bits < 0x80 then
    tree:add(f.packet_type, first, ONE_RTT)
    r:bytes(tree, f.destination, ID_LENGTH)
    return ONE_RTT
  end
  local version = r:range(4)
  local kind = OTHER
  if version:uint() == 0 then
    kind = NEGOTIATION
  elseif version:uint() == VERSION then
    kind = math.floor(bits / 16) % 4
  end
  tree:add(f.packet_type, first, kind)
  tree:add(f.version, version)
  r:bytes(tree, f.destination, r:sized(r:range(1):uint()))
  r:bytes(tree, f.source, r:sized(r:range(1):uint()))
  if kind == NEGOTIATION then
    while r:left() >= 4 do tree:add(f.version, r:range(4)) end
    return kind
  elseif kind == OTHER then
    return kind
  elseif kind == RETRY then
    r:bytes(tree, f.token, math.max(r:left() - 16, 0))
    r:bytes(tree, f.tag, 16)
    return kind
  elseif kind == 0 then
    r:bytes(tree, f.token, r:sized((r:varint())))
  end
  return kind, r:number(tree, f.length)
end

-- A packet as it was captured.
local function captured(r, root, said)
  local from = r.at
  local tree = root:add(stubborn, r.tvb(from, r:left()), "Packet")
  local whole = part(tree, function()
    local kind, length = header(r, tree)
    said[#said + 1] = PACKETS[kind]
    tree:set_text(PACKETS[kind] .. " packet")
    if not length then length = r:left() end
    if length > 0 then tree:add(f.protected, r:range(r:sized(length))) end
  end)
  if not whole then r.at = r.to end
  tree:set_len(math.max(r.at - from, 1))
end

-- Several datagrams that the sender's kernel was given as one (GSO) are captured as one, and so are
-- those that the receiver's puts together. They have the same destination, which is not encrypted.
local function segment(tvb, from, to)
  if tvb(from, 1):uint() >= 0x80 or to - from < 2 * (1 + ID_LENGTH) then return to end
  local id = tvb(from + 1, ID_LENGTH):bytes():tohex()
  local raw = tvb(from, to - from):bytes():tohex()
  local at = 2 * (1 + ID_LENGTH)
  while true do
    at = raw:find(id, at + 1, true)
    if not at then return to end
    if at % 2 == 1 and at > 40 then return from + (at - 1) / 2 - 1 end
  end
end

function stubborn.dissector(tvb, pinfo, root)
  if tvb:len() == 0 then return 0 end
  pinfo.cols.protocol = "Stubborn"
  local tree = root:add(stubborn, tvb())
  local said = {}
  local at = 0
  while at < tvb:len() do
    local to = segment(tvb, at, tvb:len())
    local r = reader(tvb, at, to)
    while r:left() > 0 do captured(r, tree, said) end
    at = to
  end
  pinfo.cols.info = table.concat(said, ", ", 1, math.min(#said, 8))
  return tvb:len()
end

-- What `stubborn pcap` writes for each datagram: for each of its packets a state (0: as captured, 1:
-- opened), who sent it, the key phase, a byte of zero, the packet number in 8 bytes, the length of the
-- header in 2, and the length of what follows in 4: header and frames. Behind them the messages that it
-- completes, each with a state of 2, its id in the place of the packet number, and then the number of its
-- frames in 4 bytes, its length in 8, and as much of it as is shown.
local RECORD = 18
local MESSAGE_HEAD = 12

local function whole_message(head, r, root, pinfo, said)
  local item = root:add(stubborn, r.tvb(r.at, r:left()), "Message put together")
  local parts, length = r:range(4), r:range(8)
  item:add(f.sender, head(1, 1)):set_generated()
  item:add(f.message, head(4, 8)):set_generated()
  item:add(f.parts, parts, parts:uint64()):set_generated()
  item:add(f.message_length, length):set_generated()
  if not completed then stubborn.init() end
  if not pinfo.visited then
    completed[message_key(pinfo, head(4, 8):uint64():tonumber())] = pinfo.number
  end
  if length:uint64():tonumber() > r:left() then item:add_proto_expert_info(e_more) end
  if r:left() == 0 then return end
  said[#said + 1] = message(r, item, pinfo, 0) .. " whole, of " .. parts:uint() .. " frames"
end

function opened.dissector(tvb, pinfo, root)
  if tvb:len() == 0 then return 0 end
  pinfo.cols.protocol = "Stubborn"
  local tree = root:add(stubborn, tvb())
  local r = reader(tvb, 0, tvb:len())
  local said = {}
  part(tree, function()
    while r:left() > 0 do
      local head = r:range(RECORD)
      local length = r:sized(head(14, 4):uint())
      local from, to = r.at, r.at + length
      local packet = reader(tvb, from, to)
      r.at = to
      local state = head(0, 1):uint()
      if state == 2 and length >= MESSAGE_HEAD then
        whole_message(head, packet, tree, pinfo, said)
      elseif state == 0 then
        while packet:left() > 0 do captured(packet, tree, said) end
      else
        local split = from + head(12, 2):uint()
        if split > to then error(CUT_SHORT, 0) end
        local item = tree:add(stubborn, tvb(from, math.max(length, 1)), "Packet")
        item:add(f.sender, head(1, 1))
        item:add(f.packet_number, head(4, 8))
        part(item, function()
          local kind = header(reader(tvb, from, split), item)
          if kind == ONE_RTT then item:add(f.key_phase, head(2, 1)) end
          local title = PACKETS[kind] .. " " .. tostring(head(4, 8):uint64())
          item:set_text(title .. " from the " .. (SENDERS[head(1, 1):uint()] or "?"))
          local told = {}
          frames(reader(tvb, split, to), item, pinfo, told)
          said[#said + 1] = title .. ": " .. table.concat(told, ", ", 1, math.min(#told, 12))
        end)
      end
    end
  end)
  pinfo.cols.info = table.concat(said, " | ")
  return tvb:len()
end

-- A long header names the version; from then on the whole conversation is ours.
local function begins(tvb, pinfo, root)
  if tvb:len() < 7 or tvb(0, 1):uint() < 0xc0 or tvb(1, 4):uint() ~= VERSION then
    return false
  end
  stubborn.dissector(tvb, pinfo, root)
  pinfo.conversation = stubborn
  return true
end

stubborn:register_heuristic("udp", begins)
DissectorTable.get("udp.port"):add_for_decode_as(stubborn)
