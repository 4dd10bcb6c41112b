// The C++ program of the interoperability tests: stock gRPC with shared_altsd.h.
//
//   peer server SOCKET ADDRESS
//   peer client SOCKET TARGET ACCOUNT,ACCOUNT...
//
// A server prints "port N" and serves until its standard input ends. A client obeys one command a line on its standard
// input, "new", "greet", "forged", "upload N", "download N", "channels N M", "echo N M", "turns N", "fail" or "deadline", and
// answers each with one line, "ok ..." or "error CODE MESSAGE".

#include <openssl/sha.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "interop.grpc.pb.h"
#include "shared_altsd.h"

namespace {

using google::protobuf::BytesValue;
using google::protobuf::StringValue;
using google::protobuf::UInt64Value;
using sharedaltsd::interop::Interop;

constexpr size_t kChunk = 1 << 20;

// Pattern gives n bytes of the stream that starts at offset.
std::string Pattern(uint64_t offset, size_t n) {
  std::string s(n, '\0');
  for (size_t i = 0; i < n; i++) s[i] = static_cast<char>(((offset + i) >> 8) ^ (offset + i));
  return s;
}

// Sizes gives the sizes of the messages of "echo N M", largest being M: the largest, the least, then powers of two at
// random as bounds of random sizes, so that small sizes are frequent, too. The other programs have the same sequence.
class Sizes {
 public:
  explicit Sizes(uint64_t largest) : largest_(largest) {}
  uint64_t Next() {
    count_++;
    if (count_ == 1) return largest_;
    if (count_ == 2) return 1;
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;
    return 1 + (random_ >> 32) % std::min(largest_, uint64_t{1} << (random_ >> 59));
  }

 private:
  const uint64_t largest_;
  uint64_t count_ = 0, random_ = 0;
};

class Digest {
 public:
  Digest() { SHA256_Init(&context_); }
  void Add(const std::string& s) { SHA256_Update(&context_, s.data(), s.size()); }
  std::string Hex() {
    unsigned char sum[SHA256_DIGEST_LENGTH];
    SHA256_Final(sum, &context_);
    std::string hex;
    for (unsigned char b : sum) {
      hex += "0123456789abcdef"[b >> 4];
      hex += "0123456789abcdef"[b & 15];
    }
    return hex;
  }

 private:
  SHA256_CTX context_;
};

template <class Context>
std::string Attribute(const Context& context, const std::string& name) {
  const auto attributes = shared_altsd::PeerAttributes(context);
  const auto found = attributes.find(name);
  return found == attributes.end() ? "-" : found->second;
}

class Service final : public Interop::Service {
  grpc::Status Greet(grpc::ServerContext* context, const StringValue*, StringValue* response) override {
    response->set_value(shared_altsd::Peer(*context) + " " + Attribute(*context, "uid"));
    return grpc::Status::OK;
  }
  grpc::Status Upload(grpc::ServerContext*, grpc::ServerReader<BytesValue>* reader, StringValue* response) override {
    Digest digest;
    BytesValue chunk;
    while (reader->Read(&chunk)) digest.Add(chunk.value());
    response->set_value(digest.Hex());
    return grpc::Status::OK;
  }
  grpc::Status Download(grpc::ServerContext*, const UInt64Value* size,
                        grpc::ServerWriter<BytesValue>* writer) override {
    for (uint64_t at = 0; at < size->value();) {
      BytesValue chunk;
      chunk.set_value(Pattern(at, std::min<uint64_t>(kChunk, size->value() - at)));
      at += chunk.value().size();
      if (!writer->Write(chunk)) break;
    }
    return grpc::Status::OK;
  }
  grpc::Status Echo(grpc::ServerContext*, grpc::ServerReaderWriter<BytesValue, BytesValue>* stream) override {
    BytesValue message;
    while (stream->Read(&message) && stream->Write(message)) {
    }
    return grpc::Status::OK;
  }
  grpc::Status Fail(grpc::ServerContext* context, const StringValue* request, StringValue*) override {
    if (request->value() == "wait") {
      while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      return grpc::Status::CANCELLED;
    }
    context->AddTrailingMetadata("said", request->value());
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "no: " + request->value());
  }
};

int Serve(const std::string& socket, const std::string& address) {
  Service service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, shared_altsd::ServerCredentials("unix://" + socket), &port);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (server == nullptr || port == 0) return 1;
  std::cout << "port " << port << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
  }
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}

class Client {
 public:
  Client(std::string target, std::shared_ptr<grpc::ChannelCredentials> credentials)
      : target_(std::move(target)), credentials_(std::move(credentials)) {
    channel_ = NewChannel();
  }

  std::string Do(const std::string& command, uint64_t n, uint64_t m) {
    if (command == "new") {
      channel_ = NewChannel();
      return "ok";
    }
    if (command == "greet") return Greet(channel_, false);
    if (command == "forged") return Greet(channel_, false, true);
    if (command == "turns") return Turns(n);
    if (command == "fail") return Fail("why", 60000);
    if (command == "deadline") return Fail("wait", 300);
    if (command == "upload") return Upload(n);
    if (command == "download") return Download(n);
    if (command == "channels") return Channels(n, m);
    if (command == "echo") return Echo(n, m);
    return "error 3 unknown command " + command;
  }

 private:
  std::shared_ptr<grpc::Channel> NewChannel() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    // Otherwise gRPC gives channels with the same credentials one connection.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(target_, credentials_, arguments);
  }

  static void SetDeadline(grpc::ClientContext* context) {
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  }

  static std::string Answer(const grpc::Status& status, const std::string& ok) {
    if (status.ok()) return "ok " + ok;
    return "error " + std::to_string(status.error_code()) + " " + status.error_message();
  }

  static std::string Greet(const std::shared_ptr<grpc::Channel>& channel, bool wait_for_ready, bool forged = false) {
    grpc::ClientContext context;
    SetDeadline(&context);
    for (const char* name : {"altsd-peer", "altsd_peer", "altsd-peer-uid", "altsd.peer"}) {
      if (forged) context.AddMetadata(name, "root@beta");
    }
    context.set_wait_for_ready(wait_for_ready);
    StringValue response;
    const auto status = Interop::NewStub(channel)->Greet(&context, StringValue(), &response);
    if (!status.ok()) return Answer(status, "");
    return "ok " + response.value() + " " + shared_altsd::Peer(context) + " " + Attribute(context, "uid");
  }

  std::string Upload(uint64_t n) {
    grpc::ClientContext context;
    SetDeadline(&context);
    StringValue response;
    const auto stub = Interop::NewStub(channel_);
    const auto writer = stub->Upload(&context, &response);
    for (uint64_t at = 0; at < n;) {
      BytesValue chunk;
      chunk.set_value(Pattern(at, std::min<uint64_t>(kChunk, n - at)));
      at += chunk.value().size();
      if (!writer->Write(chunk)) break;
    }
    writer->WritesDone();
    const auto status = writer->Finish();
    return Answer(status, response.value());
  }

  std::string Download(uint64_t n) {
    grpc::ClientContext context;
    SetDeadline(&context);
    UInt64Value size;
    size.set_value(n);
    Digest digest;
    BytesValue chunk;
    const auto stub = Interop::NewStub(channel_);
    const auto reader = stub->Download(&context, size);
    while (reader->Read(&chunk)) digest.Add(chunk.value());
    const auto status = reader->Finish();
    return Answer(status, digest.Hex());
  }

  // Echo sends n messages of 1 to m bytes and gives the digest of those that come back meanwhile, each with its size
  // and a colon before it.
  std::string Echo(uint64_t n, uint64_t m) {
    grpc::ClientContext context;
    SetDeadline(&context);
    context.set_wait_for_ready(true);  // for the reason that Channels has
    const auto stub = Interop::NewStub(channel_);
    const auto stream = stub->Echo(&context);
    std::thread writer([&] {
      Sizes sizes(m);
      uint64_t at = 0;
      for (uint64_t i = 0; i < n; i++) {
        BytesValue message;
        message.set_value(Pattern(at, sizes.Next()));
        at += message.value().size();
        if (!stream->Write(message)) break;
      }
      stream->WritesDone();
    });
    Digest digest;
    BytesValue message;
    while (stream->Read(&message)) {
      digest.Add(std::to_string(message.value().size()) + ":");
      digest.Add(message.value());
    }
    writer.join();
    const auto status = stream->Finish();
    return Answer(status, digest.Hex());
  }

  // Turns has n messages come back, each before the next is sent.
  std::string Turns(uint64_t n) {
    grpc::ClientContext context;
    SetDeadline(&context);
    const auto stub = Interop::NewStub(channel_);
    const auto stream = stub->Echo(&context);
    for (uint64_t i = 1; i <= n; i++) {
      BytesValue message, back;
      message.set_value(Pattern(0, i));
      if (!stream->Write(message) || !stream->Read(&back)) return Answer(stream->Finish(), "cut short");
      if (back.value() != message.value()) return "error 13 turn " + std::to_string(i);
    }
    stream->WritesDone();
    BytesValue back;
    if (stream->Read(&back)) return "error 13 a message too many";
    return Answer(stream->Finish(), std::to_string(n));
  }

  // Fail has a call fail, and tells how it did.
  std::string Fail(const std::string& why, int milliseconds) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(milliseconds));
    StringValue request, response;
    request.set_value(why);
    const auto status = Interop::NewStub(channel_)->Fail(&context, request, &response);
    if (status.ok()) return "error 13 it does not fail";
    std::string answer = "ok " + std::to_string(status.error_code());
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto said = trailers.find("said");
    if (said == trailers.end()) return answer;
    return answer + " " + status.error_message() + " " + std::string(said->second.data(), said->second.size());
  }

  // Channels opens n channels, m of them at once, greets on each, and holds all of them to the end. A call may try
  // again: gRPC 1.51 now and then takes a connect() that is under way for failed, with an errno that is not connect()'s
  // ("No such file or directory").
  std::string Channels(uint64_t n, uint64_t m) {
    std::vector<std::string> answers(n);
    std::vector<std::shared_ptr<grpc::Channel>> channels(n);
    for (uint64_t first = 0; first < n; first += m) {
      std::vector<std::thread> threads;
      for (uint64_t i = first; i < std::min(n, first + m); i++) {
        channels[i] = NewChannel();
        threads.emplace_back([i, &channels, &answers] { answers[i] = Greet(channels[i], true); });
      }
      for (auto& t : threads) t.join();
    }
    for (const auto& a : answers) {
      if (a.compare(0, 3, "ok ") != 0) return a;
      if (a != answers[0]) return "error 2 answers differ";
    }
    return answers[0];
  }

  const std::string target_;
  const std::shared_ptr<grpc::ChannelCredentials> credentials_;
  std::shared_ptr<grpc::Channel> channel_;
};

int RunClient(const std::string& socket, const std::string& target, const std::string& accounts) {
  std::vector<std::string> list;
  std::stringstream split(accounts);
  for (std::string a; std::getline(split, a, ',');) list.push_back(a);
  Client client(target, shared_altsd::ChannelCredentials(list, "unix://" + socket));
  for (std::string line; std::getline(std::cin, line);) {
    std::stringstream words(line);
    std::string command;
    uint64_t n = 0, m = 0;
    words >> command >> n >> m;
    std::string answer = client.Do(command, n, m);
    std::replace(answer.begin(), answer.end(), '\n', ' ');
    std::cout << answer << std::endl;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::string(argv[1]) == "server") return Serve(argv[2], argv[3]);
  if (argc == 5 && std::string(argv[1]) == "client") return RunClient(argv[2], argv[3], argv[4]);
  std::cerr << "usage: peer server SOCKET ADDRESS | peer client SOCKET TARGET ACCOUNT,ACCOUNT...\n";
  return 2;
}
