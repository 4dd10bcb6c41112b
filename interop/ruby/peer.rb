# The Ruby program of interop/programs. It does what interop/cpp/peer.cc does of Greet, Echo and Fail, with stock grpc and
# without any security, at a UNIX socket: shared-altsd listen --http or connect --grpc is at the other end of that.
#
#   peer.rb server PATH
#   peer.rb client PATH

require 'digest'
require 'grpc'
require 'google/protobuf/wrappers_pb'

Text = Google::Protobuf::StringValue
Bytes = Google::Protobuf::BytesValue

class Service
  include GRPC::GenericService
  self.marshal_class_method = :encode
  self.unmarshal_class_method = :decode
  self.service_name = 'sharedaltsd.interop.Interop'
  rpc :Greet, Text, Text
  rpc :Fail, Text, Text
  rpc :Echo, stream(Bytes), stream(Bytes)
end

class Handler < Service
  def greet(_request, call)
    Text.new(value: [call.metadata['altsd-peer'], call.metadata['altsd-peer-uid']].map { |v| Array(v || '-').join(',') }.join(' '))
  end

  def fail(request, _call)
    sleep 2 if request.value == 'wait'
    raise GRPC::BadStatus.new(GRPC::Core::StatusCodes::FAILED_PRECONDITION, "no: #{request.value}", 'said' => request.value)
  end

  def echo(requests, _call)
    requests.lazy
  end
end

ARGS = { 'grpc.max_receive_message_length' => -1 }.freeze

def serve(path)
  server = GRPC::RpcServer.new(server_args: ARGS)
  server.add_http2_port("unix:#{path}", :this_port_is_insecure)
  server.handle(Handler)
  Thread.new do
    server.wait_till_running
    puts 'port 0'
    nil while $stdin.gets
    exit! 0
  end
  server.run
end

# The sizes of the messages of "echo N M", as interop/cpp/peer.cc has them.
def sizes(count, largest)
  random = 0
  (0...count).map do |i|
    next largest if i.zero?
    next 1 if i == 1

    random = (random * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
    1 + (random >> 32) % [largest, 1 << (random >> 59)].min
  end
end

# What repeats itself after 64 KiB.
PATTERN = (0...65536).map { |i| ((i >> 8) ^ i) & 255 }.pack('C*').freeze

def pattern(at, size)
  at %= PATTERN.size
  (PATTERN * (1 + (at + size) / PATTERN.size))[at, size]
end

def soon(seconds = 60)
  { deadline: Time.now + seconds }
end

def echo(stub, count, largest)
  at = 0
  messages = sizes(count, largest).lazy.map do |size|
    at += size
    Bytes.new(value: pattern(at - size, size))
  end
  digest = Digest::SHA256.new
  stub.echo(messages, **soon).each { |m| digest << "#{m.value.bytesize}:" << m.value }
  digest.hexdigest
end

def turns(stub, count)
  outgoing = Queue.new
  messages = Enumerator.new do |y|
    while (m = outgoing.pop)
      y << m
    end
  end
  size = 1
  outgoing << Bytes.new(value: pattern(0, size))
  stub.echo(messages, **soon).each do |m|
    raise "turn #{size}: #{m.value.bytesize} bytes" unless m.value == pattern(0, size)

    size += 1
    outgoing << (size > count ? nil : Bytes.new(value: pattern(0, size)))
  end
  raise "#{size - 1} turns" unless size == count + 1

  count.to_s
end

def command(stub, name, n, m)
  case name
  when 'greet' then stub.greet(Text.new, **soon).value
  when 'forged'
    forged = %w[altsd-peer altsd_peer altsd-peer-uid altsd.peer].to_h { |k| [k, 'root@beta'] }
    stub.greet(Text.new, metadata: forged, **soon).value
  when 'echo' then echo(stub, n, m)
  when 'turns' then turns(stub, n)
  when 'fail'
    begin
      stub.fail(Text.new(value: 'why'), **soon)
      raise 'it does not fail'
    rescue GRPC::BadStatus => e
      "#{e.code} #{e.details} #{e.metadata['said']}"
    end
  when 'deadline'
    begin
      stub.fail(Text.new(value: 'wait'), **soon(0.3))
      raise 'an answer'
    rescue GRPC::BadStatus => e
      e.code.to_s
    end
  else raise "unknown command #{name}"
  end
end

def call(path)
  stub = Service.rpc_stub_class.new("unix:#{path}", :this_channel_is_insecure, channel_args: ARGS)
  while (line = $stdin.gets)
    name, n, m = line.split
    answer =
      begin
        "ok #{command(stub, name, n.to_i, m.to_i)}"
      rescue GRPC::BadStatus => e
        "error #{e.code} #{e.details}"
      rescue StandardError => e
        "error 2 #{e.message}"
      end
    puts answer.tr("\n", ' ')
  end
end

$stdout.sync = true
case ARGV[0]
when 'server' then serve(ARGV[1])
when 'client' then call(ARGV[1])
else abort 'usage: peer.rb server PATH | peer.rb client PATH'
end
