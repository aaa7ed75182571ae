// .NET's pipe streams at the other end of a named pipe: pipe ROLE PIPE LOG. What they see goes to LOG.

using System;
using System.IO;
using System.IO.Pipes;
using System.Threading.Tasks;

static class Program
{
    static string log;

    static void Say(string line)
    {
        File.AppendAllText(log, line + "\n");
    }

    // Echoes to one client until that has ended, and says then how much it was.
    static void Serve(string name, PipeTransmissionMode mode)
    {
        using (var pipe = new NamedPipeServerStream(
            name, PipeDirection.InOut, 2, mode, PipeOptions.Asynchronous, 65536, 65536))
        {
            Say("listening");
            pipe.WaitForConnection();
            var buffer = new byte[65536];
            var total = 0;
            int length;
            while ((length = pipe.Read(buffer, 0, buffer.Length)) > 0)
            {
                pipe.Write(buffer, 0, length);
                total += length;
            }
            Say("end after " + total);
            // A pipe of byte type has ended because its client is gone.
            if (mode == PipeTransmissionMode.Message)
            {
                pipe.Write(new byte[] { (byte)'b', (byte)'y', (byte)'e' }, 0, 3);
                pipe.WaitForPipeDrain();
            }
        }
    }

    static NamedPipeClientStream Connect(string name)
    {
        var pipe = new NamedPipeClientStream(".", name, PipeDirection.InOut, PipeOptions.Asynchronous);
        pipe.Connect(20000);
        return pipe;
    }

    static void Exchange(Stream pipe, byte[] sent)
    {
        var write = pipe.WriteAsync(sent, 0, sent.Length);
        var got = new byte[sent.Length];
        var count = 0;
        while (count < got.Length)
        {
            var length = pipe.Read(got, count, got.Length - count);
            if (length == 0) throw new Exception("an end after " + count + " bytes");
            count += length;
        }
        write.Wait();
        for (var at = 0; at < got.Length; at++)
        {
            if (got[at] != sent[at]) throw new Exception("another byte came back at " + at);
        }
    }

    // An echo server's client.
    static void Talk(string name)
    {
        using (var pipe = Connect(name))
        {
            var small = new byte[64];
            for (var trip = 0; trip < 1000; trip++)
            {
                for (var at = 0; at < small.Length; at++) small[at] = (byte)trip;
                Exchange(pipe, small);
            }
            Say("1000 round trips");
            var large = new byte[1 << 20];
            for (var at = 0; at < large.Length; at++) large[at] = (byte)(at % 251);
            Exchange(pipe, large);
            Say(large.Length + " bytes both ways");
        }
    }

    // Reads to the end of the other direction, and answers.
    static void Answer(string name)
    {
        using (var pipe = Connect(name))
        {
            var buffer = new byte[4096];
            var total = 0;
            int length;
            while ((length = pipe.Read(buffer, 0, buffer.Length)) > 0) total += length;
            Say("end after " + total);
            var answer = new byte[] { (byte)'a', (byte)'n', (byte)'s', (byte)'w', (byte)'e', (byte)'r' };
            pipe.Write(answer, 0, answer.Length);
            pipe.WaitForPipeDrain();
        }
    }

    static int Main(string[] args)
    {
        const string prefix = @"\\.\pipe\";
        var name = args[1].Substring(prefix.Length);
        log = args[2];
        try
        {
            switch (args[0])
            {
                case "serve": Serve(name, PipeTransmissionMode.Byte); break;
                case "serve-messages": Serve(name, PipeTransmissionMode.Message); break;
                case "talk": Talk(name); break;
                case "answer": Answer(name); break;
            }
            return 0;
        }
        catch (Exception error)
        {
            Say("failed: " + error);
            return 1;
        }
    }
}
