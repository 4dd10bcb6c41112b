import com.google.protobuf.BytesValue;
import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import com.google.protobuf.StringValue;
import com.google.protobuf.UInt64Value;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientCall;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.alts.AltsChannelCredentials;
import io.grpc.alts.AltsContext;
import io.grpc.alts.AltsContextUtil;
import io.grpc.alts.AltsServerCredentials;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ClientResponseObserver;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/**
 * The Java program of the interoperability tests: stock gRPC, under shared-altsd exec.
 *
 * <pre>
 * Peer server PORT
 * Peer client TARGET ACCOUNT,ACCOUNT...
 * </pre>
 *
 * It does what interop/cpp/peer.cc does. gRPC for Java shows nobody the attributes: "-" stands for them.
 */
public final class Peer {
  private static final int CHUNK = 1 << 20;
  private static final int PERIOD = 1 << 16;
  private static final int LARGEST_MESSAGE = 1 << 30;
  private static final byte[] PATTERN = new byte[16 * CHUNK];

  static {
    for (int i = 0; i < PATTERN.length; i++) {
      PATTERN[i] = (byte) (i >> 8 ^ i);
    }
  }

  private static final MethodDescriptor<StringValue, StringValue> GREET =
      method("Greet", MethodType.UNARY, StringValue.getDefaultInstance(), StringValue.getDefaultInstance());
  private static final MethodDescriptor<BytesValue, StringValue> UPLOAD = method(
      "Upload", MethodType.CLIENT_STREAMING, BytesValue.getDefaultInstance(), StringValue.getDefaultInstance());
  private static final MethodDescriptor<UInt64Value, BytesValue> DOWNLOAD = method(
      "Download", MethodType.SERVER_STREAMING, UInt64Value.getDefaultInstance(), BytesValue.getDefaultInstance());
  private static final MethodDescriptor<BytesValue, BytesValue> ECHO =
      method("Echo", MethodType.BIDI_STREAMING, BytesValue.getDefaultInstance(), BytesValue.getDefaultInstance());

  private static final Context.Key<String> CALLER = Context.key("caller");

  private static <Q extends Message, R extends Message> MethodDescriptor<Q, R> method(
      String name, MethodType type, Q request, R response) {
    return MethodDescriptor.<Q, R>newBuilder()
        .setType(type)
        .setFullMethodName("sharedaltsd.interop.Interop/" + name)
        .setRequestMarshaller(ProtoUtils.marshaller(request))
        .setResponseMarshaller(ProtoUtils.marshaller(response))
        .build();
  }

  public static void main(String[] args) throws Exception {
    if (args[0].equals("server")) {
      serve(Integer.parseInt(args[1]));
    } else {
      runClient(args[1], List.of(args[2].split(",")));
    }
    System.exit(0); // whatever threads gRPC still has
  }

  // ---- what both ends have

  private static BytesValue message(long offset, int size) {
    int at = (int) (offset % PERIOD);
    return BytesValue.of(ByteString.copyFrom(PATTERN, at, size));
  }

  private static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (java.security.NoSuchAlgorithmException e) {
      throw new AssertionError(e);
    }
  }

  private static void add(MessageDigest digest, BytesValue message) {
    digest.update(message.getValue().asReadOnlyByteBuffer());
  }

  private static String hex(MessageDigest digest) {
    StringBuilder s = new StringBuilder();
    for (byte b : digest.digest()) {
      s.append(String.format("%02x", b));
    }
    return s.toString();
  }

  // ---- server

  private static void serve(int port) throws Exception {
    ServerServiceDefinition service = ServerServiceDefinition.builder("sharedaltsd.interop.Interop")
        .addMethod(GREET, ServerCalls.asyncUnaryCall((request, response) -> {
          response.onNext(StringValue.of(CALLER.get() + " -"));
          response.onCompleted();
        }))
        .addMethod(UPLOAD, ServerCalls.asyncClientStreamingCall(Peer::takeUpload))
        .addMethod(DOWNLOAD, ServerCalls.asyncServerStreamingCall(Peer::giveDownload))
        .addMethod(ECHO, ServerCalls.asyncBidiStreamingCall(Peer::echo))
        .build();
    Server server = Grpc.newServerBuilderForPort(port, AltsServerCredentials.create())
        .maxInboundMessageSize(LARGEST_MESSAGE)
        .addService(service)
        .intercept(new ServerInterceptor() {
          @Override
          public <Q, R> ServerCall.Listener<Q> interceptCall(
              ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
            String caller = AltsContextUtil.createFrom(call).getPeerServiceAccount();
            return Contexts.interceptCall(Context.current().withValue(CALLER, caller), call, headers, next);
          }
        })
        .build()
        .start();
    System.out.println("port " + server.getPort());
    while (System.in.read() >= 0) {
    }
    server.shutdownNow();
  }

  private static StreamObserver<BytesValue> takeUpload(StreamObserver<StringValue> response) {
    MessageDigest digest = sha256();
    return new StreamObserver<BytesValue>() {
      @Override
      public void onNext(BytesValue chunk) {
        add(digest, chunk);
      }

      @Override
      public void onError(Throwable e) {}

      @Override
      public void onCompleted() {
        response.onNext(StringValue.of(hex(digest)));
        response.onCompleted();
      }
    };
  }

  private static void giveDownload(UInt64Value size, StreamObserver<BytesValue> observer) {
    ServerCallStreamObserver<BytesValue> response = (ServerCallStreamObserver<BytesValue>) observer;
    long[] at = {0};
    boolean[] done = {false};
    response.setOnReadyHandler(() -> {
      while (response.isReady() && !done[0]) {
        if (at[0] == size.getValue()) {
          response.onCompleted();
          done[0] = true;
          return;
        }
        int n = (int) Math.min(CHUNK, size.getValue() - at[0]);
        response.onNext(message(at[0], n));
        at[0] += n;
      }
    });
  }

  private static StreamObserver<BytesValue> echo(StreamObserver<BytesValue> response) {
    return new StreamObserver<BytesValue>() {
      @Override
      public void onNext(BytesValue message) {
        response.onNext(message);
      }

      @Override
      public void onError(Throwable e) {}

      @Override
      public void onCompleted() {
        response.onCompleted();
      }
    };
  }

  // ---- client

  private final String target;
  private final ChannelCredentials credentials;
  private ManagedChannel channel;

  private Peer(String target, List<String> accounts) {
    AltsChannelCredentials.Builder builder = new AltsChannelCredentials.Builder();
    for (String account : accounts) {
      if (!account.isEmpty()) {
        builder.addTargetServiceAccount(account);
      }
    }
    this.target = target;
    this.credentials = builder.build();
    this.channel = newChannel();
  }

  private ManagedChannel newChannel() {
    return Grpc.newChannelBuilder(target, credentials).maxInboundMessageSize(LARGEST_MESSAGE).build();
  }

  private static CallOptions options() {
    return CallOptions.DEFAULT.withDeadlineAfter(60, TimeUnit.SECONDS);
  }

  private static void runClient(String target, List<String> accounts) throws Exception {
    Peer client = new Peer(target, accounts);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line; (line = in.readLine()) != null; ) {
      String[] words = line.split(" ");
      long n = words.length > 1 ? Long.parseLong(words[1]) : 0;
      long m = words.length > 2 ? Long.parseLong(words[2]) : 0;
      String answer;
      try {
        answer = "ok " + client.obey(words[0], n, (int) m);
      } catch (StatusRuntimeException e) {
        answer = describe(e.getStatus());
      }
      System.out.println(answer.replace('\n', ' '));
    }
  }

  private static String describe(Status status) {
    return "error " + status.getCode().value() + " " + status.getDescription();
  }

  private String obey(String command, long n, int m) throws Exception {
    switch (command) {
      case "new":
        channel.shutdownNow();
        channel = newChannel();
        return "";
      case "greet":
        return greet(channel);
      case "upload":
        return upload(n);
      case "download":
        return download(n);
      case "channels":
        return channels((int) n, m);
      case "echo":
        return echo((int) n, m);
      default:
        throw new IllegalArgumentException(command);
    }
  }

  private static String greet(Channel channel) {
    ClientCall<StringValue, StringValue> call = channel.newCall(GREET, options());
    CompletableFuture<StringValue> reply = new CompletableFuture<>();
    String[] server = {"-"};
    ClientCalls.asyncUnaryCall(call, StringValue.getDefaultInstance(), new StreamObserver<StringValue>() {
      @Override
      public void onNext(StringValue value) {
        server[0] = serverOf(call);
        reply.complete(value);
      }

      @Override
      public void onError(Throwable e) {
        reply.completeExceptionally(e);
      }

      @Override
      public void onCompleted() {}
    });
    return take(reply).getValue() + " " + server[0] + " -";
  }

  /** Gives the server's account, which gRPC shows a client from 1.71 on. */
  private static String serverOf(ClientCall<?, ?> call) {
    try {
      Object context = AltsContextUtil.class.getMethod("createFrom", ClientCall.class).invoke(null, call);
      return ((AltsContext) context).getPeerServiceAccount();
    } catch (NoSuchMethodException e) {
      return "-";
    } catch (IllegalAccessException | InvocationTargetException e) {
      return e.toString();
    }
  }

  private static <T> T take(Future<T> future) {
    try {
      return future.get();
    } catch (ExecutionException e) {
      throw (StatusRuntimeException) e.getCause();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  /** A Call sends when the channel has room, and collects what comes. */
  private abstract static class Call<Q, R> implements ClientResponseObserver<Q, R> {
    private final Object ready = new Object();
    private ClientCallStreamObserver<Q> requests;
    private final CompletableFuture<Void> ended = new CompletableFuture<>();

    @Override
    public void beforeStart(ClientCallStreamObserver<Q> requests) {
      this.requests = requests;
      requests.setOnReadyHandler(this::wake);
    }

    private void wake() {
      synchronized (ready) {
        ready.notifyAll();
      }
    }

    void send(Q message) throws InterruptedException {
      synchronized (ready) {
        while (!requests.isReady() && !ended.isDone()) {
          ready.wait();
        }
      }
      if (!ended.isDone()) {
        requests.onNext(message);
      }
    }

    void finish() {
      if (!ended.isDone()) {
        requests.onCompleted();
      }
      take(ended);
    }

    @Override
    public void onError(Throwable e) {
      ended.completeExceptionally(e);
      wake();
    }

    @Override
    public void onCompleted() {
      ended.complete(null);
      wake();
    }
  }

  private String upload(long size) throws InterruptedException {
    String[] answer = {null};
    Call<BytesValue, StringValue> call = new Call<BytesValue, StringValue>() {
      @Override
      public void onNext(StringValue value) {
        answer[0] = value.getValue();
      }
    };
    ClientCalls.asyncClientStreamingCall(channel.newCall(UPLOAD, options()), call);
    for (long at = 0; at < size; at += CHUNK) {
      call.send(message(at, (int) Math.min(CHUNK, size - at)));
    }
    call.finish();
    return answer[0];
  }

  private String download(long size) {
    MessageDigest digest = sha256();
    Iterator<BytesValue> chunks =
        ClientCalls.blockingServerStreamingCall(channel, DOWNLOAD, options(), UInt64Value.of(size));
    while (chunks.hasNext()) {
      add(digest, chunks.next());
    }
    return hex(digest);
  }

  /** Sends n messages of 1 to largest bytes, of the sizes that interop/cpp/peer.cc has. */
  private String echo(int n, int largest) throws InterruptedException {
    MessageDigest digest = sha256();
    Call<BytesValue, BytesValue> call = new Call<BytesValue, BytesValue>() {
      @Override
      public void onNext(BytesValue message) {
        digest.update((message.getValue().size() + ":").getBytes(StandardCharsets.US_ASCII));
        add(digest, message);
      }
    };
    ClientCalls.asyncBidiStreamingCall(channel.newCall(ECHO, options()), call);
    long random = 0;
    long at = 0;
    for (int i = 0; i < n; i++) {
      int size = i == 0 ? largest : 1;
      if (i > 1) {
        random = random * 6364136223846793005L + 1442695040888963407L;
        size = (int) (1 + (random >>> 32) % Math.min(largest, 1L << (random >>> 59)));
      }
      call.send(message(at, size));
      at += size;
    }
    call.finish();
    return hex(digest);
  }

  /** Opens n channels, at most atOnce at the same time, greets on each, and holds all of them to the end. */
  private String channels(int n, int atOnce) {
    ExecutorService pool = Executors.newFixedThreadPool(atOnce);
    List<ManagedChannel> channels = new ArrayList<>();
    List<Future<String>> answers = new ArrayList<>();
    for (int i = 0; i < n; i++) {
      ManagedChannel c = newChannel();
      channels.add(c);
      answers.add(pool.submit(() -> greet(c)));
    }
    try {
      Set<String> different = new HashSet<>();
      for (Future<String> answer : answers) {
        different.add(take(answer));
      }
      return String.join("; ", different);
    } finally {
      channels.forEach(ManagedChannel::shutdownNow);
      pool.shutdown();
    }
  }
}
